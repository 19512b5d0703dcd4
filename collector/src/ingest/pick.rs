//! Several elements of one slice, borrowed mutably at once.

/// The elements at `positions`, which rise strictly; positions beyond the end are left out.
pub(crate) fn pick_mut<'a, T>(slice: &'a mut [T], positions: &[usize]) -> Vec<&'a mut T> {
    let mut picked = Vec::with_capacity(positions.len());
    let mut rest = slice;
    let mut consumed = 0;
    for &position in positions {
        let Some(skip) = position.checked_sub(consumed) else { break };
        let Some((_, tail)) = std::mem::take(&mut rest).split_at_mut_checked(skip) else { break };
        let Some((element, tail)) = tail.split_first_mut() else { break };
        picked.push(element);
        rest = tail;
        consumed = position + 1;
    }
    picked
}

#[cfg(test)]
mod tests {
    #[test]
    fn picks_what_it_is_told() {
        let mut numbers = [0, 10, 20, 30];
        for number in super::pick_mut(&mut numbers, &[0, 2, 3]) {
            *number += 1;
        }
        assert_eq!(numbers, [1, 10, 21, 31]);
        assert_eq!(super::pick_mut(&mut numbers, &[1, 4]).len(), 1);
    }
}
