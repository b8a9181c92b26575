//! What AVX2 and AVX-512 share: how a table is put together, and the shape of a tiled product.

/// Defines a module's `TABLE`: the functions of `lanes` compiled for `$features`, beside a `product`.
macro_rules! table {
    ($name:literal, $features:literal, $gemm:expr, $gemm_bf16:expr) => {
        /// Handed out by `super::tables` alone, which asks the processor first.
        pub(crate) static TABLE: $crate::table::Table = $crate::table::Table {
            name: $name,
            product,
            dot,
            axpy,
            sum_of_squares,
            rms_norm,
            rms_norm_backward,
            softmax,
            narrow,
            weighted_sum,
            silu_mul,
            silu_mul_backward,
            rope,
            adamw,
            gemm: &$gemm,
            gemm_bf16: &$gemm_bf16,
        };

        super::wiring::compiled_for! { $features:
            fn axpy(a: f32, x: &[f32], y: &mut [f32]);
            fn sum_of_squares(x: &[f32]) -> f64;
            fn dot(a: &[f32], b: &[f32]) -> f32;
            fn rms_norm(x: &[f32], weight: &[f32], eps: f32, out: &mut [f32]) -> f32;
            fn rms_norm_backward(row: $crate::table::NormRow<'_>, d_x: &mut [f32], d_weight: &mut [f32]);
            fn softmax(x: &mut [f32]) -> f32;
            fn narrow(x: &[f32], out: &mut [half::bf16]);
            fn weighted_sum(weights: &[f32], values: &[f32], out: &mut [f32]);
            fn silu_mul(gate: &[f32], up: &[f32], out: &mut [f32]);
            fn silu_mul_backward(gate: &mut [f32], up: &mut [f32], d_out: &[f32]);
            fn rope(head: &mut [f32], cos: &[f32], sin: &[f32]);
            fn adamw(step: &$crate::table::AdamWStep, p: &mut [f32], g: &[f32], m: &mut [f32], v: &mut [f32]);
        }

        fn product(x: &[f32], weight: &[f32], in_features: usize, out: &mut [f32]) {
            let (tokens, rows) = $crate::lanes::product_shape(x, weight, in_features, out);
            // SAFETY: the shapes were checked, and this table is handed out only where the processor
            // has its instructions.
            unsafe { tiles(x.as_ptr(), weight.as_ptr(), in_features, out.as_mut_ptr(), [tokens, rows]) }
        }
    };
}

/// Compiles functions of `lanes` for an instruction set, with fused multiply-add.
macro_rules! compiled_for {
    ($features:literal: $(fn $name:ident($($arg:ident: $type:ty),*) $(-> $out:ty)?;)*) => {$(
        fn $name($($arg: $type),*) $(-> $out)? {
            #[target_feature(enable = $features)]
            fn compiled($($arg: $type),*) $(-> $out)? {
                $crate::lanes::$name::<true>($($arg),*)
            }
            // SAFETY: this table is handed out only where the processor has its instructions.
            unsafe { compiled($($arg),*) }
        }
    )*};
}

/// Defines `tiles`, the whole product, over the vector operations `zero`, `load`, `load_some`,
/// `multiply_add` and `total` of the surrounding module.
///
/// A tile is `R` rows by `T` tokens, one accumulator each. Every element is accumulated alike in every
/// tile shape: that is the batch invariance of this crate's head.
macro_rules! tiles {
    ($features:literal, $lanes:literal, rows: $rows:literal, tokens: $tokens:literal) => {
        /// Tokens whose features stay in the second-level cache while the rows go by.
        const CACHED_FLOATS: usize = 1 << 16;

        /// # Safety
        /// `x` `[tokens, in_features]`, `weight` `[rows, in_features]` and `out` `[tokens, rows]` must
        /// be valid for `shape` = `[tokens, rows]`, and the processor must have the instructions.
        #[target_feature(enable = $features)]
        unsafe fn tiles(x: *const f32, weight: *const f32, k: usize, out: *mut f32, shape: [usize; 2]) {
            let [tokens, rows] = shape;
            let cached = (CACHED_FLOATS / k).max(1).next_multiple_of($tokens);
            for first in (0..tokens).step_by(cached) {
                let here = cached.min(tokens - first);
                // SAFETY: token `first` and the `here` that follow lie within `x` and `out`.
                unsafe { token_block(x.add(first * k), weight, k, out.add(first * rows), [here, rows]) };
            }
        }

        /// # Safety
        /// As `tiles`.
        #[target_feature(enable = $features)]
        unsafe fn token_block(x: *const f32, weight: *const f32, k: usize, out: *mut f32, shape: [usize; 2]) {
            let [tokens, rows] = shape;
            let mut r = 0;
            while r < rows {
                // One token waits for memory, not for arithmetic: more rows at once hide latency.
                let step = if tokens == 1 && r + 2 * $rows <= rows { 2 * $rows } else { $rows };
                let step = if r + step <= rows { step } else { 1 };
                // SAFETY: rows `r..r + step` exist.
                unsafe {
                    let (weight, out) = (weight.add(r * k), out.add(r));
                    match step {
                        1 => row_block::<1>(x, weight, k, out, shape),
                        $rows => row_block::<$rows>(x, weight, k, out, shape),
                        _ => row_block::<{ 2 * $rows }>(x, weight, k, out, shape),
                    }
                }
                r += step;
            }
        }

        /// # Safety
        /// As `tiles`, for the `R` rows at `weight`.
        #[target_feature(enable = $features)]
        unsafe fn row_block<const R: usize>(
            x: *const f32,
            weight: *const f32,
            k: usize,
            out: *mut f32,
            shape: [usize; 2],
        ) {
            let [tokens, rows] = shape;
            let mut t = 0;
            while t < tokens {
                let step = if R <= $rows && t + $tokens <= tokens { $tokens } else { 1 };
                // SAFETY: tokens `t..t + step` exist.
                unsafe {
                    let (x, out) = (x.add(t * k), out.add(t * rows));
                    if step == $tokens {
                        tile::<R, $tokens>(x, weight, k, out, rows);
                    } else {
                        tile::<R, 1>(x, weight, k, out, rows);
                    }
                }
                t += step;
            }
        }

        /// # Safety
        /// As `tiles`, for the `R` rows at `weight` and the `T` tokens at `x`.
        #[target_feature(enable = $features)]
        unsafe fn tile<const R: usize, const T: usize>(
            x: *const f32,
            weight: *const f32,
            k: usize,
            out: *mut f32,
            rows: usize,
        ) {
            let mut sums = [[zero(); T]; R];
            let whole = k - k % $lanes;
            for i in (0..whole).step_by($lanes) {
                // SAFETY: `i + lanes ≤ k`, and each row and token has `k` floats.
                let xs: [_; T] = std::array::from_fn(|t| unsafe { load(x.add(t * k + i)) });
                for (r, sums) in sums.iter_mut().enumerate() {
                    // SAFETY: as above.
                    let w = unsafe { load(weight.add(r * k + i)) };
                    for t in 0..T {
                        sums[t] = multiply_add(w, xs[t], sums[t]);
                    }
                }
            }
            if whole < k {
                // SAFETY: the last `k - whole` floats of each row and token exist; no more are read.
                let last = |from: *const f32| unsafe { load_some(from.add(whole), k - whole) };
                let xs: [_; T] = std::array::from_fn(|t| last(x.wrapping_add(t * k)));
                for (r, sums) in sums.iter_mut().enumerate() {
                    let w = last(weight.wrapping_add(r * k));
                    for t in 0..T {
                        sums[t] = multiply_add(w, xs[t], sums[t]);
                    }
                }
            }
            for (r, sums) in sums.iter().enumerate() {
                for (t, &sum) in sums.iter().enumerate() {
                    // SAFETY: `out` holds `T` tokens, `rows` apart, and at least `R` rows from here.
                    unsafe { *out.add(t * rows + r) = total(sum) };
                }
            }
        }
    };
}

pub(super) use {compiled_for, table, tiles};
