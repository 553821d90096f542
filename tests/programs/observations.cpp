// What a host can see of a cudaFree that does not wait, one way of looking at a time.
//
//   observations list        the scenarios: what is expected, the pool's rule behind it, the name
//   observations SCENARIO
//
// With the real cudaFree every scenario is right. Exit code 1 if something was wrong.
#include "observations/scene.h"

namespace {

using observations::Expect;
using observations::Scenario;

std::vector<Scenario> AllScenarios() {
  std::vector<Scenario> all;
  for (const auto& some : {observations::CopyScenarios(), observations::CopyAttributeScenarios(),
                           observations::WorkScenarios(), observations::MemoryScenarios(),
                           observations::FinishedScenarios(), observations::QueryScenarios(),
                           observations::EndScenarios(), observations::QuietScenarios()}) {
    all.insert(all.end(), some.begin(), some.end());
  }
  return all;
}

const char* NameOf(Expect expect) {
  switch (expect) {
    case Expect::kVisible:
      return "visible";
    case Expect::kOneWait:
      return "one-wait";
    case Expect::kQuiet:
      break;
  }
  return "quiet";
}

}  // namespace

int main(int count, char** arguments) {
  const std::string wanted = count > 1 ? arguments[1] : "";
  if (wanted == "peer") return observations::BePeer();
  setvbuf(stdout, nullptr, _IOLBF, 1 << 12);
  for (const Scenario& scenario : AllScenarios()) {
    if (wanted == "list") {
      printf("%s %s %s\n", NameOf(scenario.expect), scenario.rule, scenario.name.c_str());
    }
    if (wanted != scenario.name) continue;
    MUST(cudaFree(nullptr));
    if (!scenario.from_start) observations::Settle();
    scenario.run();
    MUST(cudaDeviceSynchronize());
    printf("wrong %d\n", observations::g_wrong);
    printf("# seen: %d\n", observations::g_seen);
    program::SayHazards();
    return observations::g_wrong == 0 && simHazardCount() == 0 && simMisuseCount() == 0 ? 0 : 1;
  }
  return wanted == "list" ? 0 : 2;
}
