"""XXH3-64, as its specification has it (xxHash 0.8), for inputs of any length.

Slow and plain: a second opinion on what the C code writes.  A seed is supported for the
16 bytes of a digest's term only.
"""

import struct

M64 = (1 << 64) - 1
P32_1, P32_2, P32_3 = 0x9E3779B1, 0x85EBCA77, 0xC2B2AE3D
P64_1, P64_2, P64_3 = 0x9E3779B185EBCA87, 0xC2B2AE3D27D4EB4F, 0x165667B19E3779F9
P64_4, P64_5 = 0x85EBCA77C2B2AE63, 0x27D4EB2F165667C5
SECRET = bytes.fromhex(
    "b8fe6c3923a44bbe7c01812cf721ad1cded46de9839097db7240a4a4b7b3671fcb79e64eccc0e578"
    "825ad07dccff7221b8084674f743248ee03590e6813a264c3c2852bb91c300cb88d0658b1b532ea3"
    "71644897a20df94e3819ef46a9deacd8a8fa763fe39c343ff9dcbbc7c70b4f1d8a51e04bcdb45931"
    "c89f7ec9d9787364eac5ac8334d3ebc3c581a0fffa1363eb170ddd51b7f0da49d316552629d4689e"
    "2b16be587d47a1fc8ff8b8d17ad031ce45cb3a8f95160428afd7fbcabb4b407e"
)


def u32(b, at):
    return struct.unpack_from("<I", b, at)[0]


def u64(b, at):
    return struct.unpack_from("<Q", b, at)[0]


def fold(a, b):
    product = a * b
    return (product & M64) ^ (product >> 64)


def avalanche(h):
    h ^= h >> 37
    h = h * 0x165667919E3779F9 & M64
    return h ^ h >> 32


def avalanche64(h):
    h ^= h >> 33
    h = h * P64_2 & M64
    h ^= h >> 29
    h = h * P64_3 & M64
    return h ^ h >> 32


def rotl(h, n):
    return (h << n | h >> 64 - n) & M64


def swap64(v):
    return int.from_bytes(v.to_bytes(8, "little"), "big")


def mix16(b, at, secret_at):
    return fold(u64(b, at) ^ u64(SECRET, secret_at), u64(b, at + 8) ^ u64(SECRET, secret_at + 8))


def to_16(b, seed):
    n = len(b)
    if n > 8:
        low = u64(b, 0) ^ ((u64(SECRET, 24) ^ u64(SECRET, 32)) + seed & M64)
        high = u64(b, n - 8) ^ ((u64(SECRET, 40) ^ u64(SECRET, 48)) - seed & M64)
        return avalanche(n + swap64(low) + high + fold(low, high) & M64)
    if n >= 4:
        h = (u32(b, n - 4) + (u32(b, 0) << 32)) ^ u64(SECRET, 8) ^ u64(SECRET, 16)
        h ^= rotl(h, 49) ^ rotl(h, 24)
        h = h * 0x9FB21C651E98DF25 & M64
        h ^= (h >> 35) + n
        h = h * 0x9FB21C651E98DF25 & M64
        return h ^ h >> 28
    if n:
        combined = b[0] << 16 | b[n >> 1] << 24 | b[-1] | n << 8
        return avalanche64(combined ^ u32(SECRET, 0) ^ u32(SECRET, 4))
    return avalanche64(u64(SECRET, 56) ^ u64(SECRET, 64))


def to_240(b):
    n = len(b)
    acc = n * P64_1
    if n <= 128:
        for i in range((n - 1) // 32, -1, -1):
            acc += mix16(b, 16 * i, 32 * i) + mix16(b, n - 16 * (i + 1), 32 * i + 16)
        return avalanche(acc & M64)
    for i in range(8):
        acc += mix16(b, 16 * i, 16 * i)
    acc = avalanche(acc & M64)
    for i in range(8, n // 16):
        acc += mix16(b, 16 * i, 16 * (i - 8) + 3)
    return avalanche(acc + mix16(b, n - 16, 136 - 17) & M64)


KEYS = [struct.unpack_from("<8Q", SECRET, 8 * i) for i in range(16)]
SCRAMBLE = struct.unpack_from("<8Q", SECRET, len(SECRET) - 64)
LAST = struct.unpack_from("<8Q", SECRET, len(SECRET) - 64 - 7)
MERGE = struct.unpack_from("<8Q", SECRET, 11)


def accumulate(acc, lanes, key):
    for i in range(8):
        value = lanes[i]
        keyed = value ^ key[i]
        acc[i ^ 1] += value
        acc[i] += (keyed & 0xFFFFFFFF) * (keyed >> 32)


def long(b):
    n = len(b)
    acc = [P32_3, P64_1, P64_2, P64_3, P64_4, P32_2, P64_5, P32_1]
    stripes = (n - 1) // 64
    for at in range(stripes):
        accumulate(acc, struct.unpack_from("<8Q", b, 64 * at), KEYS[at % 16])
        if at % 16 == 15:
            for i in range(8):
                lane = acc[i] & M64
                acc[i] = (lane ^ lane >> 47 ^ SCRAMBLE[i]) * P32_1 & M64
    accumulate(acc, struct.unpack_from("<8Q", b, n - 64), LAST)
    h = n * P64_1
    for i in range(0, 8, 2):
        h += fold((acc[i] & M64) ^ MERGE[i], (acc[i + 1] & M64) ^ MERGE[i + 1])
    return avalanche(h & M64)


def xxh3(b, seed=0):
    """The hash of bytes."""
    if len(b) <= 16:
        if seed and len(b) <= 8:
            raise ValueError("no seed for so few bytes")
        return to_16(b, seed)
    if seed:
        raise ValueError("no seed for so many bytes")
    return to_240(b) if len(b) <= 240 else long(b)
