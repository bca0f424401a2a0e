// Weights k .. + 15 of weight row `row` of TABLE, as they lie there.
fn NAME(codes: u32, scales: u32, row: u32, k: u32) -> Raw {
    var raw: Raw;
//if IQ2
    let group = codes + row * (K / 16u) + k / 32u * 2u;
    raw.a.x = TABLE[group];
    raw.a.y = TABLE[group + 1u];
    raw.a.z = TABLE[scales + (row * (K / 256u) + k / 256u) / 2u];
    raw.a.w = row * (K / 256u) + k / 256u;
//end
//if Q2K
    let block = codes + (row * (K / 256u) + k / 256u) * BLOCK_WORDS;
    let n = (k / 128u) & 1u;
    let at = block + 4u + 8u * n + 4u * ((k / 16u) & 1u);
    raw.a = vec4<u32>(TABLE[at], TABLE[at + 1u], TABLE[at + 2u], TABLE[at + 3u]);
    raw.b.x = TABLE[block + 20u];
    raw.b.y = TABLE[block + 2u * n + ((k / 64u) & 1u)];
//end
//if Q4K
    let block = codes + (row * (K / 256u) + k / 256u) * BLOCK_WORDS;
    let at = block + 4u + 8u * ((k / 64u) & 3u) + 4u * ((k / 16u) & 1u);
    raw.a = vec4<u32>(TABLE[at], TABLE[at + 1u], TABLE[at + 2u], TABLE[at + 3u]);
    raw.b = vec4<u32>(TABLE[block], TABLE[block + 1u], TABLE[block + 2u], TABLE[block + 3u]);
//end
//if MXFP4
    let block = row * (K / 32u) + k / 32u;
    let at = codes + 4u * block;
    raw.a = vec4<u32>(TABLE[at], TABLE[at + 1u], TABLE[at + 2u], TABLE[at + 3u]);
    raw.b.x = TABLE[scales + block / 4u];
    raw.b.y = block & 3u;
//end
//if Q8
    let block = row * (K / 32u) + k / 32u;
    let at = codes + row * (K / 4u) + k / 4u;
    raw.a = vec4<u32>(TABLE[at], TABLE[at + 1u], TABLE[at + 2u], TABLE[at + 3u]);
    raw.b.x = TABLE[scales + block / 2u];
    raw.b.y = block & 1u;
//end
//if F16
    let at = codes + row * (K / 2u) + k / 2u;
    raw.a = vec4<u32>(TABLE[at], TABLE[at + 1u], TABLE[at + 2u], TABLE[at + 3u]);
    raw.b = vec4<u32>(TABLE[at + 4u], TABLE[at + 5u], TABLE[at + 6u], TABLE[at + 7u]);
//end
//if F32
    let at = codes + row * K + k;
    raw.a = vec4<u32>(TABLE[at], TABLE[at + 1u], TABLE[at + 2u], TABLE[at + 3u]);
    raw.b = vec4<u32>(TABLE[at + 4u], TABLE[at + 5u], TABLE[at + 6u], TABLE[at + 7u]);
    raw.c = vec4<u32>(TABLE[at + 8u], TABLE[at + 9u], TABLE[at + 10u], TABLE[at + 11u]);
    raw.d = vec4<u32>(TABLE[at + 12u], TABLE[at + 13u], TABLE[at + 14u], TABLE[at + 15u]);
//end
    return raw;
}
