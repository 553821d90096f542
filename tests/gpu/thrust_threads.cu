// Thrust in several threads, each on a stream of its own: vectors and temporaries are allocated anew
// in every round, by all threads at once.
#include <thrust/device_vector.h>
#include <thrust/execution_policy.h>
#include <thrust/reduce.h>
#include <thrust/sequence.h>
#include <thrust/sort.h>
#include <thrust/transform.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <thread>
#include <vector>

struct Scramble {
  __device__ unsigned operator()(unsigned x) const { return x * 2654435761u; }
};

void Work(unsigned thread, unsigned long long* digest) {
  cudaStream_t stream = nullptr;
  if (cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking) != cudaSuccess) std::abort();
  const auto policy = thrust::cuda::par.on(stream);
  for (unsigned i = 0; i < 200; ++i) {
    // What fills the vector runs on the legacy stream, as thrust has it.
    thrust::device_vector<unsigned> values(50000 + i * 37 + thread * 1001);
    cudaStreamSynchronize(cudaStreamLegacy);
    thrust::sequence(policy, values.begin(), values.end(), i + thread);
    thrust::transform(policy, values.begin(), values.end(), values.begin(), Scramble());
    thrust::sort(policy, values.begin(), values.end());
    *digest = *digest * 31 + thrust::reduce(policy, values.begin(), values.end(), 0ull);
  }
  cudaStreamDestroy(stream);
}

int main() {
  const auto begin = std::chrono::steady_clock::now();
  unsigned long long digests[4] = {};
  std::vector<std::thread> threads;
  for (unsigned i = 0; i < 4; ++i) threads.emplace_back(Work, i, &digests[i]);
  for (std::thread& thread : threads) thread.join();
  const std::chrono::duration<double> seconds = std::chrono::steady_clock::now() - begin;
  for (const unsigned long long digest : digests) std::printf("%016llx\n", digest);
  std::fprintf(stderr, "thrust_threads: seconds %.6f\n", seconds.count());
  return 0;
}
