//! Kernels of x86-64.

mod avx2;
mod avx512;
mod avx512vl;

use std::arch::is_x86_feature_detected;

use crate::kernel::Kernel;
use crate::words;

const AVX2: [Kernel; 5] = with_words(Kernel::new(8, avx2::compress::<1>), Kernel::new(16, avx2::compress::<2>));

const AVX512: [Kernel; 5] = with_words(Kernel::new(8, avx512vl::compress::<1>), Kernel::new(16, avx512::compress::<1>));

/// Kernels that need no feature.
const WORDS: [Kernel; 3] =
    [Kernel::new(1, words::compress::<1>), Kernel::new(2, words::compress::<2>), Kernel::new(3, words::compress::<3>)];

/// Returns these kernels after those that need no feature.
const fn with_words(eight: Kernel, sixteen: Kernel) -> [Kernel; 5] {
    let [one, two, three] = WORDS;
    [one, two, three, eight, sixteen]
}

/// Returns the kernels for each set of features that this processor has, the best last.
pub(crate) fn available() -> impl Iterator<Item = &'static [Kernel]> {
    let has_avx2 = is_x86_feature_detected!("avx2");
    let has_avx512 = has_avx2 && is_x86_feature_detected!("avx512f") && is_x86_feature_detected!("avx512vl");
    let sets: [(bool, &'static [Kernel]); 3] = [(true, &WORDS), (has_avx2, &AVX2), (has_avx512, &AVX512)];
    sets.into_iter().filter(|(has_features, _)| *has_features).map(|(_, kernels)| kernels)
}
