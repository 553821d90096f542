// The words of the report: a summary for people, JSON for programs.
#ifndef CMP_SHIM_RECORD_REPORT_TEXT_H_
#define CMP_SHIM_RECORD_REPORT_TEXT_H_

#include "core/pool/pool.h"
#include "shim/record/text.h"

namespace cmp {

// Rises when a field goes or means something else. Every field is described in
// scripts/docs/formats/statistics.schema.json.
inline constexpr int kJsonSchemaVersion = 1;
// How every JSON report begins.
inline constexpr char kJsonBeginning[] = "{\n  \"cmp_statistics\":";

void AddSummary(Text& text, Pool& pool);
void AddJsonReport(Text& text, Pool& pool);

// For a process that used CUDA and reached none of the entry points.
void AddUnreachedSummary(Text& text, const char* reason);
void AddUnreachedJson(Text& text, const char* reason);

}  // namespace cmp

#endif  // CMP_SHIM_RECORD_REPORT_TEXT_H_
