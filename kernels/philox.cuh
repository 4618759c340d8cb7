// The random generator of random.py: Philox 4x32-10, the same bits as on the CPU.
//
// The 64-bit seed is the key; the 128-bit counter holds (block, stream, step). Source: Salmon,
// Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011.

struct Words {
  unsigned at[4];
};

__device__ __forceinline__ Words philox(
    unsigned long long seed, unsigned long long stream, unsigned long long step, unsigned block) {
  unsigned c0 = block, c1 = (unsigned)stream, c2 = (unsigned)step, c3 = (unsigned)(step >> 32);
  unsigned k0 = (unsigned)seed, k1 = (unsigned)(seed >> 32);
  for (int round = 0; round < 10; ++round) {
    unsigned high0 = __umulhi(0xD2511F53u, c0), low0 = 0xD2511F53u * c0;
    unsigned high1 = __umulhi(0xCD9E8D57u, c2), low1 = 0xCD9E8D57u * c2;
    c0 = high1 ^ c1 ^ k0;
    c1 = low1;
    c2 = high0 ^ c3 ^ k1;
    c3 = low0;
    k0 += 0x9E3779B9u;
    k1 += 0xBB67AE85u;
  }
  return {{c0, c1, c2, c3}};
}

// An integer 0 ... bound - 1: the upper half of word x bound.
__device__ __forceinline__ int below(unsigned word, int bound) {
  return (int)(((unsigned long long)word * (unsigned)bound) >> 32);
}
