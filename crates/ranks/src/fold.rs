//! Sums by a fixed tree: neighbours first, then neighbouring sums, and so on.

/// Adds up buffers as they come, by the tree that [`tree`] makes of all of them at once. It holds one buffer
/// for each bit that is set in the number of buffers so far, as a binary counter does. The last buffer comes
/// in parts, so that each part of the sum is there before the whole.
#[derive(Clone, Debug, Default)]
pub struct Fold {
    waiting: Vec<Waiting>, // the largest sums first
    spare: Vec<Vec<f32>>,
}

/// A sum that waits for its neighbour.
#[derive(Clone, Debug)]
struct Waiting {
    level: u32, // it is of 2^level buffers
    sum: Vec<f32>,
}

/// Adds the second slice to the first, element by element.
pub type Add = fn(&mut [f32], &[f32]);

impl Fold {
    /// Takes the next buffer, and leaves in its place one of the same length with any values.
    pub fn push(&mut self, buffer: &mut Vec<f32>, add: Add) {
        let mut level = 0;
        while let Some(neighbour) = self.waiting.pop_if(|waiting| waiting.level == level) {
            let mut sum = neighbour.sum;
            add(&mut sum, buffer);
            self.spare.push(std::mem::replace(buffer, sum));
            level += 1;
        }
        let next = self.spare.pop().unwrap_or_else(|| vec![0.0; buffer.len()]);
        self.waiting.push(Waiting { level, sum: std::mem::replace(buffer, next) });
    }

    /// Takes a part of the last buffer, whose first value has the number `start`, and leaves the sum of all
    /// in it. The parts may come in any order; after them, [`Fold::clear`] begins anew.
    pub fn finish(&self, part: &mut [f32], start: usize, add: Add) {
        for waiting in self.waiting.iter().rev() {
            add(part, &waiting.sum[start..start + part.len()]);
        }
    }

    /// Buffers that it holds at most while so many are added.
    pub fn buffers(count: usize) -> usize {
        if count < 2 { 0 } else { count.next_power_of_two().ilog2() as usize }
    }

    /// Forgets the buffers that were pushed.
    pub fn clear(&mut self) {
        self.spare.extend(self.waiting.drain(..).map(|waiting| waiting.sum));
    }
}

/// Adds `rows` of `len` values each into the first row: (0 + 1) + (2 + 3), and so on.
///
/// # Shapes
/// `rows`: `[count, len]`
pub fn tree<T: Copy + std::ops::AddAssign>(rows: &mut [T], len: usize) {
    let count = rows.len().checked_div(len).unwrap_or(0);
    let mut width = 1;
    while width < count {
        for left in (0..count - width).step_by(2 * width) {
            let (before, after) = rows.split_at_mut((left + width) * len);
            let sum = &mut before[left * len..][..len];
            sum.iter_mut().zip(&after[..len]).for_each(|(sum, value)| *sum += *value);
        }
        width *= 2;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn add(sum: &mut [f32], values: &[f32]) {
        sum.iter_mut().zip(values).for_each(|(sum, value)| *sum += value);
    }

    /// Values whose sum depends on the order of its additions.
    fn buffers(count: usize) -> Vec<Vec<f32>> {
        let value =
            |i: usize, k: usize| ((i * 7919 + k * 104_729) % 1009) as f32 * 1.1f32.powi((i * 5 % 37) as i32);
        (0..count).map(|i| (0..9).map(|k| value(i, k)).collect()).collect()
    }

    fn folded(buffers: &[Vec<f32>]) -> Vec<f32> {
        let (mut fold, mut held) = (Fold::default(), 0);
        let mut buffer = vec![0.0; 9];
        let (last, before) = buffers.split_last().unwrap();
        for values in before {
            buffer.copy_from_slice(values);
            fold.push(&mut buffer, add);
            held = held.max(fold.waiting.len() + fold.spare.len());
        }
        buffer.copy_from_slice(last);
        let (front, back) = buffer.split_at_mut(4);
        fold.finish(back, 4, add);
        fold.finish(front, 0, add);
        assert!(held <= Fold::buffers(buffers.len()), "{held} of {}", buffers.len());
        buffer
    }

    #[test]
    fn as_they_come_and_all_at_once_are_one_sum() {
        for count in 1..40 {
            let buffers = buffers(count);
            let mut rows = buffers.concat();
            tree(&mut rows, 9);
            assert_eq!(folded(&buffers), rows[..9], "{count}");
        }
        let in_order = buffers(8).into_iter().reduce(|mut sum, values| {
            add(&mut sum, &values);
            sum
        });
        assert_ne!(folded(&buffers(8)), in_order.unwrap(), "the order shows");
    }

    /// The rule that makes runs over processes equal.
    #[test]
    fn equal_shares_of_a_power_of_two_give_the_sum_of_all() {
        for (each, ranks) in [(1, 8), (2, 4), (4, 3), (8, 5), (1, 7), (16, 2)] {
            let all = buffers(each * ranks);
            let mut rows: Vec<f32> = all.chunks(each).flat_map(folded).collect();
            tree(&mut rows, 9);
            assert_eq!(rows[..9], folded(&all), "{ranks} of {each}");
        }
        let all = buffers(6);
        let mut rows: Vec<f32> = all.chunks(3).flat_map(folded).collect();
        tree(&mut rows, 9);
        assert_ne!(rows[..9], folded(&all), "three is no power of two");
    }
}
