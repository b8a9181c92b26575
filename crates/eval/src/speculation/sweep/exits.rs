//! Which exits a sweep measures.

use offramp_engine::Adaptive;

/// The exits of a sweep: of the model's own that draft, and those at which copies do. Without any asked for,
/// those from which the adaptive policy chooses. `own` and `copies` say which are to be swept.
pub fn swept_exits(depth: usize, asked: &[usize], own: bool, copies: bool) -> [Vec<usize>; 2] {
    let exits = if asked.is_empty() { Adaptive::exits(depth) } else { asked.to_vec() };
    // All of the model's own layers are no draft, and all copies are one.
    let whole = (asked.is_empty() && copies).then_some(depth);
    let copied = if copies { exits.iter().copied().chain(whole).collect() } else { Vec::new() };
    let own = exits.into_iter().filter(|&exit| own && (exit != depth || !copies)).collect();
    [own, copied]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_copies_are_swept_and_all_own_layers_are_not() {
        assert_eq!(swept_exits(4, &[], true, true), [vec![1, 2], vec![1, 2, 4]]);
        assert_eq!(swept_exits(4, &[], true, false), [vec![1, 2], vec![]]);
        assert_eq!(swept_exits(4, &[3, 4], false, true), [vec![], vec![3, 4]]);
        assert_eq!(swept_exits(4, &[3, 4], true, true), [vec![3], vec![3, 4]]);
    }
}
