//! A gradient in parts, each of which goes on as soon as the backward has left it.

use std::ops::Range;

/// Parts of a buffer of gradients, which follow each other.
pub(crate) struct Parts<'g, 'd> {
    parts: Vec<Part<'g>>,
    done: &'d mut dyn FnMut(Part<'g>),
}

/// One part.
#[derive(Debug)]
pub(crate) struct Part<'g> {
    /// Its number, in the order of the buffer.
    pub(crate) index: usize,
    /// The number of its first value in the buffer.
    pub(crate) start: usize,
    pub(crate) values: &'g mut [f32],
}

impl Part<'_> {
    fn end(&self) -> usize {
        self.start + self.values.len()
    }

    /// The values of a range of the buffer.
    fn at(&mut self, range: &Range<usize>) -> &mut [f32] {
        &mut self.values[range.start - self.start..range.end - self.start]
    }
}

impl<'g, 'd> Parts<'g, 'd> {
    /// Parts that end where these ranges end. `done` gets each once, when its last value is there.
    pub(crate) fn new(
        values: &'g mut [f32],
        ranges: impl Iterator<Item = Range<usize>>,
        done: &'d mut dyn FnMut(Part<'g>),
    ) -> Self {
        let (mut rest, mut start) = (values, 0);
        let part = |(index, range): (usize, Range<usize>)| {
            let (values, after) = std::mem::take(&mut rest).split_at_mut(range.end - start);
            rest = after;
            let part = Part { index, start, values };
            start = range.end;
            part
        };
        Self { parts: ranges.enumerate().map(part).collect(), done }
    }

    /// The values of a range that lies in one part.
    ///
    /// # Panics
    /// If it does not, or the part is done.
    pub(super) fn at(&mut self, range: &Range<usize>) -> &mut [f32] {
        let index = self.part_of(range);
        self.parts[index].at(range)
    }

    /// The values of two ranges that do not overlap, each in one part.
    pub(super) fn two(&mut self, ranges: &[Range<usize>; 2]) -> [&mut [f32]; 2] {
        let [first, second] = [self.part_of(&ranges[0]), self.part_of(&ranges[1])];
        if first == second {
            let part = &mut self.parts[first];
            let inside = |range: &Range<usize>| range.start - part.start..range.end - part.start;
            let both = [inside(&ranges[0]), inside(&ranges[1])];
            return part.values.get_disjoint_mut(both).expect("two tensors do not overlap");
        }
        let [one, other] = self.parts.get_disjoint_mut([first, second]).expect("two parts");
        [one.at(&ranges[0]), other.at(&ranges[1])]
    }

    /// The values of ranges that follow each other, each in one part.
    pub(super) fn several<const N: usize>(&mut self, ranges: &[Range<usize>; N]) -> [&mut [f32]; N] {
        let mut found = Vec::with_capacity(N);
        let mut wanted = ranges.iter().peekable();
        for part in &mut self.parts {
            let (mut start, end) = (part.start, part.end());
            let mut rest = &mut *part.values;
            while let Some(range) = wanted.next_if(|range| start <= range.start && range.end <= end) {
                let (_, from) = rest.split_at_mut(range.start - start);
                let (values, after) = from.split_at_mut(range.len());
                found.push(values);
                (rest, start) = (after, range.end);
            }
        }
        found.try_into().expect("tensors lie in parts, which are not done")
    }

    fn part_of(&self, range: &Range<usize>) -> usize {
        let found = self.parts.iter().position(|part| part.start <= range.start && range.end <= part.end());
        found.expect("a tensor lies in one part, which is not done")
    }

    /// Says that nothing in this range changes any more. The parts that lie in it are done, the last first.
    pub(super) fn finish(&mut self, range: &Range<usize>) {
        let lies_in = |part: &Part<'_>| range.start <= part.start && part.end() <= range.end;
        while let Some(index) = self.parts.iter().rposition(lies_in) {
            (self.done)(self.parts.remove(index));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_done_once_and_whole_and_the_last_first() {
        let mut values = [0.0; 12];
        let mut found = Vec::new();
        let mut done = |part: Part<'_>| found.push((part.index, part.start, part.values.to_vec()));
        let mut parts = Parts::new(&mut values, [0..3, 3..5, 5..9, 9..12].into_iter(), &mut done);
        parts.at(&(6..8)).fill(1.0);
        let [one, other] = parts.two(&[5..6, 10..11]);
        (one[0], other[0]) = (2.0, 3.0);
        let [one, other] = parts.two(&[1..3, 0..1]);
        (one[1], other[0]) = (4.0, 5.0);
        let [first, second, third] = parts.several(&[3..4, 6..7, 9..10]);
        assert_eq!((first.len(), second[0], third[0]), (1, 1.0, 0.0));
        parts.finish(&(4..9)); // the part before it is not done
        parts.finish(&(3..9));
        parts.at(&(11..12))[0] = 6.0;
        parts.finish(&(0..12));
        let expected = [
            (2, 5, vec![2.0, 1.0, 1.0, 0.0]),
            (1, 3, vec![0.0, 0.0]),
            (3, 9, vec![0.0, 3.0, 6.0]),
            (0, 0, vec![5.0, 0.0, 4.0]),
        ];
        assert_eq!(found, expected);
    }
}
