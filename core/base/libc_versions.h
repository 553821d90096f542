// Binds functions that the C library gave a newer symbol version to their oldest one, so that what
// is built here starts on older systems too. Included before everything else in both libraries and
// in cmp-replay.
//
// The versions: glibc 2.34 moved libdl's and part of libpthread's functions into libc under new
// versions. The old ones are still there, and on older systems libdl.so.2 and libpthread.so.0,
// which all three need, provide them. aarch64 begins at 2.17.
#ifndef CMP_CORE_BASE_LIBC_VERSIONS_H_
#define CMP_CORE_BASE_LIBC_VERSIONS_H_

#if defined(__x86_64__)
#define CMP_OLDEST "GLIBC_2.2.5"
#elif defined(__aarch64__)
#define CMP_OLDEST "GLIBC_2.17"
#endif

#if defined(CMP_OLDEST) && !defined(__SANITIZE_THREAD__) && !defined(__SANITIZE_ADDRESS__)
#define CMP_BIND(name) __asm__(".symver " #name "," #name "@" CMP_OLDEST)
CMP_BIND(dladdr);
CMP_BIND(dlclose);
CMP_BIND(dlerror);
CMP_BIND(dlopen);
CMP_BIND(dlsym);
CMP_BIND(dlvsym);
CMP_BIND(pthread_attr_setstacksize);
CMP_BIND(pthread_barrier_init);
CMP_BIND(pthread_barrier_wait);
CMP_BIND(pthread_create);
CMP_BIND(pthread_join);
CMP_BIND(pthread_key_create);
CMP_BIND(pthread_key_delete);
CMP_BIND(pthread_mutex_trylock);
CMP_BIND(pthread_setspecific);
CMP_BIND(pthread_sigmask);
#undef CMP_BIND
#endif

#endif  // CMP_CORE_BASE_LIBC_VERSIONS_H_
