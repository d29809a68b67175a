// CUDA's small vectors: aligned as on the device, up to 16 bytes.
#pragma once

#define EMU_VECTOR2(T, name)                                                           \
    struct alignas(2 * sizeof(T)) name##2 { T x, y; };                                 \
    static inline name##2 make_##name##2(T x, T y) { return {x, y}; }
#define EMU_VECTOR3(T, name)                                                           \
    struct name##3 { T x, y, z; };                                                     \
    static inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }
#define EMU_VECTOR4(T, name)                                                           \
    struct alignas(sizeof(T) < 4 ? 4 * sizeof(T) : 16) name##4 { T x, y, z, w; };      \
    static inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
#define EMU_VECTORS(T, name) EMU_VECTOR2(T, name) EMU_VECTOR3(T, name) EMU_VECTOR4(T, name)

EMU_VECTORS(signed char, char)
EMU_VECTORS(unsigned char, uchar)
EMU_VECTORS(short, short)
EMU_VECTORS(unsigned short, ushort)
EMU_VECTORS(int, int)
EMU_VECTORS(unsigned, uint)
EMU_VECTORS(long long, longlong)
EMU_VECTORS(unsigned long long, ulonglong)
EMU_VECTORS(float, float)
EMU_VECTORS(double, double)

struct dim3 {
    unsigned x, y, z;
    dim3(unsigned x = 1, unsigned y = 1, unsigned z = 1) : x(x), y(y), z(z) {}
};
