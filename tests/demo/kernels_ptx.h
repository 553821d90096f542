// The kernels of kernels.h in PTX, which the driver compiles for its GPU: no nvcc is needed.
#ifndef CMP_TESTS_DEMO_KERNELS_PTX_H_
#define CMP_TESTS_DEMO_KERNELS_PTX_H_

namespace cmp::demo {

// fill and check: a grid-stride loop over the words. stamp: one warp. The others: one thread.
// What another kernel may change meanwhile is read and written by volatile accesses, past L1.
inline constexpr char kPtx[] = R"(
.version 6.0
.target sm_50
.address_size 64

.visible .entry fill(.param .u64 words, .param .u32 count, .param .u32 pattern)
{
  .reg .pred %p;
  .reg .u32 %i, %n, %s, %v, %a, %b, %c;
  .reg .u64 %base, %at;
  ld.param.u64 %base, [words];
  cvta.to.global.u64 %base, %base;
  ld.param.u32 %n, [count];
  ld.param.u32 %v, [pattern];
  mov.u32 %a, %ctaid.x;
  mov.u32 %b, %ntid.x;
  mov.u32 %c, %tid.x;
  mad.lo.u32 %i, %a, %b, %c;
  mov.u32 %c, %nctaid.x;
  mul.lo.u32 %s, %b, %c;
again:
  setp.ge.u32 %p, %i, %n;
  @%p bra done;
  mul.wide.u32 %at, %i, 4;
  add.u64 %at, %base, %at;
  add.u32 %a, %v, %i;
  st.global.u32 [%at], %a;
  add.u32 %i, %i, %s;
  bra again;
done:
  ret;
}

.visible .entry check(.param .u64 words, .param .u32 count, .param .u32 pattern,
                      .param .u64 findings)
{
  .reg .pred %p;
  .reg .u32 %i, %n, %s, %v, %a, %b, %c;
  .reg .u64 %base, %at, %found, %wrong, %sum, %word;
  ld.param.u64 %base, [words];
  cvta.to.global.u64 %base, %base;
  ld.param.u64 %found, [findings];
  cvta.to.global.u64 %found, %found;
  ld.param.u32 %n, [count];
  ld.param.u32 %v, [pattern];
  mov.u32 %a, %ctaid.x;
  mov.u32 %b, %ntid.x;
  mov.u32 %c, %tid.x;
  mad.lo.u32 %i, %a, %b, %c;
  mov.u32 %c, %nctaid.x;
  mul.lo.u32 %s, %b, %c;
  mov.u64 %wrong, 0;
  mov.u64 %sum, 0;
again:
  setp.ge.u32 %p, %i, %n;
  @%p bra done;
  mul.wide.u32 %at, %i, 4;
  add.u64 %at, %base, %at;
  ld.global.u32 %a, [%at];
  cvt.u64.u32 %word, %a;
  add.u64 %sum, %sum, %word;
  add.u32 %b, %v, %i;
  setp.ne.u32 %p, %a, %b;
  @%p add.u64 %wrong, %wrong, 1;
  add.u32 %i, %i, %s;
  bra again;
done:
  red.global.add.u64 [%found], %wrong;
  red.global.add.u64 [%found+8], %sum;
  ret;
}

.visible .entry delay(.param .u64 nanoseconds)
{
  .reg .pred %p;
  .reg .u64 %begin, %now, %length;
  ld.param.u64 %length, [nanoseconds];
  mov.u64 %begin, %globaltimer;
again:
  mov.u64 %now, %globaltimer;
  sub.u64 %now, %now, %begin;
  setp.lt.u64 %p, %now, %length;
  @%p bra again;
  ret;
}

.visible .entry stamp(.param .u64 words, .param .u32 count, .param .u32 id, .param .u32 fresh,
                      .param .u64 nanoseconds, .param .u64 corruptions)
{
  .reg .pred %p, %other;
  .reg .u32 %n, %id, %fresh, %round, %lane, %a, %b, %bad, %found;
  .reg .u64 %base, %first, %last, %some, %more, %report, %begin, %now, %length, %old;
  ld.param.u64 %base, [words];
  cvta.to.global.u64 %base, %base;
  ld.param.u32 %n, [count];
  ld.param.u32 %id, [id];
  ld.param.u32 %fresh, [fresh];
  ld.param.u64 %length, [nanoseconds];
  ld.param.u64 %report, [corruptions];
  cvta.to.global.u64 %report, %report;
  // Four words of this lane: one of the first, one of the last, two anywhere.
  mov.u32 %lane, %tid.x;
  rem.u32 %a, %lane, %n;
  mul.wide.u32 %first, %a, 4;
  add.u64 %first, %base, %first;
  sub.u32 %b, %n, %a;
  sub.u32 %b, %b, 1;
  mul.wide.u32 %last, %b, 4;
  add.u64 %last, %base, %last;
  mul.lo.u32 %a, %id, 2654435769;
  mul.lo.u32 %b, %lane, 2246822519;
  xor.b32 %a, %a, %b;
  shr.u32 %b, %a, 15;
  xor.b32 %a, %a, %b;
  mul.lo.u32 %a, %a, 3266489917;
  mul.hi.u32 %b, %a, %n;
  mul.wide.u32 %some, %b, 4;
  add.u64 %some, %base, %some;
  shr.u32 %b, %a, 13;
  xor.b32 %a, %a, %b;
  mul.lo.u32 %a, %a, 668265263;
  mul.hi.u32 %b, %a, %n;
  mul.wide.u32 %more, %b, 4;
  add.u64 %more, %base, %more;
  mov.u32 %round, 0;
  setp.ne.u32 %p, %fresh, 0;
  @%p bra write;
check:
  mov.u32 %bad, 0;
  ld.volatile.global.u32 %a, [%first];
  setp.ne.u32 %p, %a, %id;
  @%p mov.u32 %found, %a;
  @%p add.u32 %bad, %bad, 1;
  ld.volatile.global.u32 %a, [%last];
  setp.ne.u32 %p, %a, %id;
  @%p mov.u32 %found, %a;
  @%p add.u32 %bad, %bad, 1;
  ld.volatile.global.u32 %a, [%some];
  setp.ne.u32 %p, %a, %id;
  @%p mov.u32 %found, %a;
  @%p add.u32 %bad, %bad, 1;
  ld.volatile.global.u32 %a, [%more];
  setp.ne.u32 %p, %a, %id;
  @%p mov.u32 %found, %a;
  @%p add.u32 %bad, %bad, 1;
  setp.eq.u32 %p, %bad, 0;
  @%p bra write;
  cvt.u64.u32 %now, %bad;
  atom.global.add.u64 %old, [%report], %now;
  setp.ne.u64 %p, %old, 0;
  @%p bra write;
  st.global.u32 [%report+8], %id;
  st.global.u32 [%report+12], %found;
write:
  st.volatile.global.u32 [%first], %id;
  st.volatile.global.u32 [%last], %id;
  st.volatile.global.u32 [%some], %id;
  st.volatile.global.u32 [%more], %id;
  setp.ne.u32 %p, %round, 0;
  @%p bra done;
  mov.u32 %round, 1;
  mov.u64 %begin, %globaltimer;
again:
  mov.u64 %now, %globaltimer;
  sub.u64 %now, %now, %begin;
  setp.lt.u64 %p, %now, %length;
  @%p bra again;
  bra check;
done:
  ret;
}

.visible .entry write_late(.param .u64 word, .param .u32 value, .param .u64 nanoseconds)
{
  .reg .pred %p;
  .reg .u32 %v;
  .reg .u64 %at, %begin, %now, %length;
  ld.param.u64 %at, [word];
  cvta.to.global.u64 %at, %at;
  ld.param.u32 %v, [value];
  ld.param.u64 %length, [nanoseconds];
  mov.u64 %begin, %globaltimer;
again:
  mov.u64 %now, %globaltimer;
  sub.u64 %now, %now, %begin;
  setp.lt.u64 %p, %now, %length;
  @%p bra again;
  st.volatile.global.u32 [%at], %v;
  ret;
}

.visible .entry copy_word(.param .u64 from, .param .u64 to)
{
  .reg .u32 %v;
  .reg .u64 %a, %b;
  ld.param.u64 %a, [from];
  cvta.to.global.u64 %a, %a;
  ld.param.u64 %b, [to];
  cvta.to.global.u64 %b, %b;
  ld.volatile.global.u32 %v, [%a];
  st.volatile.global.u32 [%b], %v;
  ret;
}

.visible .entry spin_until(.param .u64 word, .param .u32 value, .param .u64 nanoseconds,
                           .param .u64 gave_up)
{
  .reg .pred %p;
  .reg .u32 %v, %a;
  .reg .u64 %at, %report, %begin, %now, %length;
  ld.param.u64 %at, [word];
  cvta.to.global.u64 %at, %at;
  ld.param.u64 %report, [gave_up];
  cvta.to.global.u64 %report, %report;
  ld.param.u32 %v, [value];
  ld.param.u64 %length, [nanoseconds];
  mov.u64 %begin, %globaltimer;
again:
  ld.volatile.global.u32 %a, [%at];
  setp.eq.u32 %p, %a, %v;
  @%p bra done;
  mov.u64 %now, %globaltimer;
  sub.u64 %now, %now, %begin;
  setp.lt.u64 %p, %now, %length;
  @%p bra again;
  st.volatile.global.u32 [%report], %v;
done:
  ret;
}

.visible .entry empty()
{
  ret;
}
)";

}  // namespace cmp::demo

#endif  // CMP_TESTS_DEMO_KERNELS_PTX_H_
