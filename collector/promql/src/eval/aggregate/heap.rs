//! A heap of the k best samples, element by element as Go's `container/heap` moves them, so that of
//! equals the same ones stay and come out in the same order.

/// A sample of a series in a heap.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) value: f64,
    /// Which series.
    pub(super) series: usize,
}

/// Order of the heap: the worst sample is on top.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Best {
    Largest,
    Smallest,
}

impl Best {
    /// Whether a sample is to be thrown out before another. NaN goes first.
    fn is_worse(self, a: f64, b: f64) -> bool {
        if a.is_nan() {
            return true;
        }
        match self {
            Best::Largest => a < b,
            Best::Smallest => a > b,
        }
    }

    /// Whether a new sample takes the place of the worst one.
    fn displaces(self, worst: f64, new: f64) -> bool {
        (worst.is_nan() && !new.is_nan())
            || match self {
                Best::Largest => worst < new,
                Best::Smallest => worst > new,
            }
    }
}

/// Offers a sample to a heap of at most `k`.
pub(super) fn offer(heap: &mut Vec<Entry>, k: usize, best: Best, entry: Entry) {
    if heap.len() < k {
        heap.push(entry);
        let last = heap.len() - 1;
        sift_up(heap, last, best);
    } else if let Some(worst) = heap.first_mut()
        && best.displaces(worst.value, entry.value)
    {
        *worst = entry;
        sift_down(heap, 0, best);
    }
}

fn sift_up(heap: &mut [Entry], mut index: usize, best: Best) {
    while index > 0 {
        let parent = (index - 1) / 2;
        if !best.is_worse(heap[index].value, heap[parent].value) {
            break;
        }
        heap.swap(index, parent);
        index = parent;
    }
}

fn sift_down(heap: &mut [Entry], mut index: usize, best: Best) {
    loop {
        let left = 2 * index + 1;
        if left >= heap.len() {
            break;
        }
        let right = left + 1;
        let child = if right < heap.len() && best.is_worse(heap[right].value, heap[left].value) {
            right
        } else {
            left
        };
        if !best.is_worse(heap[child].value, heap[index].value) {
            break;
        }
        heap.swap(index, child);
        index = child;
    }
}

/// Orders a heap from best to worst.
pub(super) fn best_first(heap: &mut [Entry], best: Best) {
    heap.sort_by(|a, b| match (a.value.is_nan(), b.value.is_nan()) {
        (true, true) => std::cmp::Ordering::Equal,
        (true, false) => std::cmp::Ordering::Greater,
        (false, true) => std::cmp::Ordering::Less,
        (false, false) => {
            let rising = a.value.partial_cmp(&b.value).unwrap_or(std::cmp::Ordering::Equal);
            if best == Best::Largest { rising.reverse() } else { rising }
        }
    });
}
