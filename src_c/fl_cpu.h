/* What this processor and its operating system can run. */
#ifndef FL_CPU_H
#define FL_CPU_H

enum {
    FL_CPU_FMA = 1 << 0,
    FL_CPU_AVX2 = 1 << 1,
    FL_CPU_AVX512F = 1 << 2,
    FL_CPU_AVX512DQ = 1 << 3,
    FL_CPU_AVX512BW = 1 << 4,
    FL_CPU_AVX512VL = 1 << 5,
    FL_CPU_NEON = 1 << 6
};
unsigned fl_cpu_features(void);

#endif
