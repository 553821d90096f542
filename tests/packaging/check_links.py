"""Do all links of installed pages lead somewhere? check_links.py FOLDER"""

import pathlib
import re
import sys

folder = pathlib.Path(sys.argv[1])
links = [(page, link) for page in sorted(folder.rglob("*.md"))
         for link in re.findall(r"\]\(([^)#\s]+)[^)]*\)", page.read_text(encoding="utf-8"))
         if not re.match(r"\w+:", link)]
broken = [f"{page}: {link}" for page, link in links if not (page.parent / link).exists()]
print("\n".join(broken), end="\n" if broken else "")
sys.exit(1 if broken or len(links) < 100 else 0)
