// Kernels of the scenarios of `visible`, in PTX.
#ifndef CMP_TESTS_GPU_VISIBLE_PTX_H_
#define CMP_TESTS_GPU_VISIBLE_PTX_H_

namespace cmp::gpu {

// Both take their time first. print_late prints "right" and a new line; fetch_late: *to = the first
// texel.
inline constexpr char kLatePtx[] = R"(
.version 6.0
.target sm_50
.address_size 64

.extern .func (.param .b32 printed) vprintf(.param .b64 format, .param .b64 arguments);
.global .align 1 .b8 text[7] = {114, 105, 103, 104, 116, 10, 0};

.visible .entry print_late(.param .u64 nanoseconds)
{
  .reg .pred %p;
  .reg .u64 %begin, %now, %length, %at;
  ld.param.u64 %length, [nanoseconds];
  mov.u64 %begin, %globaltimer;
again:
  mov.u64 %now, %globaltimer;
  sub.u64 %now, %now, %begin;
  setp.lt.u64 %p, %now, %length;
  @%p bra again;
  mov.u64 %at, text;
  cvta.global.u64 %at, %at;
  {
    .param .b64 format;
    st.param.b64 [format+0], %at;
    .param .b64 arguments;
    st.param.b64 [arguments+0], 0;
    .param .b32 printed;
    call.uni (printed), vprintf, (format, arguments);
  }
  ret;
}

.visible .entry fetch_late(.param .u64 texture, .param .u64 to, .param .u64 nanoseconds)
{
  .reg .pred %p;
  .reg .u32 %zero, %x, %y, %z, %w;
  .reg .u64 %texture, %to, %begin, %now, %length;
  ld.param.u64 %texture, [texture];
  ld.param.u64 %to, [to];
  cvta.to.global.u64 %to, %to;
  ld.param.u64 %length, [nanoseconds];
  mov.u64 %begin, %globaltimer;
again:
  mov.u64 %now, %globaltimer;
  sub.u64 %now, %now, %begin;
  setp.lt.u64 %p, %now, %length;
  @%p bra again;
  mov.u32 %zero, 0;
  tex.1d.v4.u32.s32 {%x, %y, %z, %w}, [%texture, {%zero}];
  st.global.u32 [%to], %x;
  ret;
}
)";

// A variable in managed memory.
inline constexpr char kManagedPtx[] = R"(
.version 6.0
.target sm_50
.address_size 64

.visible .global .attribute(.managed) .align 4 .u32 managed_word = 0;
)";

}  // namespace cmp::gpu

#endif  // CMP_TESTS_GPU_VISIBLE_PTX_H_
