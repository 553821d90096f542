// A thrust program whose vectors and temporaries are allocated anew in every round.
#include <thrust/device_vector.h>
#include <thrust/reduce.h>
#include <thrust/sequence.h>
#include <thrust/sort.h>
#include <thrust/transform.h>

#include <chrono>
#include <cstdio>

struct Scramble {
  __device__ unsigned operator()(unsigned x) const { return x * 2654435761u; }
};

int main() {
  const auto begin = std::chrono::steady_clock::now();
  unsigned long long digest = 0;
  for (int i = 0; i < 300; ++i) {
    thrust::device_vector<unsigned> values(100000 + i * 37);
    thrust::sequence(values.begin(), values.end(), i);
    thrust::transform(values.begin(), values.end(), values.begin(), Scramble());
    thrust::sort(values.begin(), values.end());
    digest = digest * 31 + thrust::reduce(values.begin(), values.end(), 0ull) + values[i];
  }
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  std::printf("%016llx\n", digest);
  std::fprintf(stderr, "thrust_sort: seconds %.6f\n", seconds.count());
  return 0;
}
