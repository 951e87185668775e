//! Places in a list: fractional index keys, strings of base-62 digits that sort as text.
//!
//! Between any two different keys there is always another, so an item can be put anywhere without touching its
//! neighbours. No valid key ends in `0`, because nothing fits below such a key. Keys are never compared as numbers.

const DIGITS: &[u8; 62] = b"0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// A key longer than this is replaced when its list is next written.
const KEY_MAX_BYTES: usize = 200;

fn digit(byte: u8) -> Option<usize> {
    DIGITS.iter().position(|d| *d == byte)
}

fn is_valid(key: &str) -> bool {
    (1..=KEY_MAX_BYTES).contains(&key.len())
        && key.bytes().all(|b| b.is_ascii_alphanumeric())
        && !key.ends_with('0')
}

/// Evenly spaced keys for a new list of `count` items.
fn spread(count: usize) -> Vec<String> {
    let (mut width, mut room) = (1, 62u128);
    while room <= count as u128 {
        width += 1;
        room *= 62;
    }
    let key = |i: usize| {
        let mut at = room * (i as u128 + 1) / (count as u128 + 1);
        let mut text = vec![b'0'; width];
        for place in text.iter_mut().rev() {
            *place = DIGITS[(at % 62) as usize];
            at /= 62;
        }
        let text = String::from_utf8_lossy(&text).into_owned();
        text.trim_end_matches('0').to_owned()
    };
    (0..count).map(key).collect()
}

/// A key between two valid ones; an empty `low` is the beginning, no `high` the end.
fn midpoint(low: &[u8], high: Option<&[u8]>) -> Vec<u8> {
    if let Some(high) = high {
        let same = high.iter().enumerate().take_while(|(i, d)| low.get(*i).unwrap_or(&b'0') == *d).count();
        if same > 0 {
            let mut key = high[..same].to_vec();
            key.extend(midpoint(low.get(same..).unwrap_or_default(), Some(&high[same..])));
            return key;
        }
    }
    let from = low.first().and_then(|d| digit(*d)).unwrap_or(0);
    let to = high.and_then(|h| h.first()).and_then(|d| digit(*d)).unwrap_or(62);
    if to > from + 1 {
        return vec![DIGITS[(from + to) / 2]];
    }
    if let Some(high) = high.filter(|h| h.len() > 1) {
        return high[..1].to_vec();
    }
    let mut key = vec![DIGITS[from]];
    key.extend(midpoint(low.get(1..).unwrap_or_default(), None));
    key
}

fn fill(low: &str, high: Option<&str>, count: usize, out: &mut Vec<String>) {
    if count == 0 {
        return;
    }
    let middle = midpoint(low.as_bytes(), high.map(str::as_bytes));
    let middle = String::from_utf8_lossy(&middle).into_owned();
    fill(low, Some(&middle), (count - 1) / 2, out);
    out.push(middle.clone());
    fill(&middle, high, count - 1 - (count - 1) / 2, out);
}

/// Which of `ranks` form a longest increasing run.
fn longest_increasing(ranks: &[Option<usize>]) -> Vec<bool> {
    let mut tails: Vec<usize> = Vec::new();
    let mut before: Vec<Option<usize>> = vec![None; ranks.len()];
    for (i, rank) in ranks.iter().enumerate() {
        if rank.is_none() {
            continue;
        }
        let at = tails.partition_point(|t| ranks[*t] < *rank);
        before[i] = at.checked_sub(1).map(|p| tails[p]);
        if at == tails.len() {
            tails.push(i);
        } else {
            tails[at] = i;
        }
    }
    let mut kept = vec![false; ranks.len()];
    let mut at = tails.last().copied();
    while let Some(i) = at {
        kept[i] = true;
        at = before[i];
    }
    kept
}

/// Keys for a list, given for each item its rank and key in the list that it replaces, if it was there. As many
/// items as possible keep their key.
pub(super) fn assign(before: &[Option<(usize, &str)>]) -> Vec<String> {
    if before.iter().all(Option::is_none) {
        return spread(before.len());
    }
    let ranks: Vec<_> =
        before.iter().map(|b| b.filter(|(_, key)| is_valid(key)).map(|(rank, _)| rank)).collect();
    let kept = longest_increasing(&ranks);
    let key = |i: usize| before[i].filter(|_| kept[i]).map(|(_, key)| key);
    let mut keys: Vec<String> = Vec::with_capacity(before.len());
    while keys.len() < before.len() {
        let i = keys.len();
        if let Some(key) = key(i) {
            keys.push(key.to_owned());
            continue;
        }
        let low = keys.last().cloned().unwrap_or_default();
        // A kept key that leaves no room above `low` (two nodes may have chosen the same) is replaced too.
        let next = (i..before.len()).find(|j| key(*j).is_some_and(|k| k > low.as_str()));
        let end = next.unwrap_or(before.len());
        fill(&low, next.and_then(key), end - i, &mut keys);
    }
    keys
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn a_new_list_is_spread_evenly() {
        assert_eq!(spread(1), ["V"]);
        assert_eq!(spread(2), ["K", "f"]);
        for n in [0, 1, 61, 62, 63, 500, 5000] {
            let keys = spread(n);
            assert!(keys.iter().all(|k| is_valid(k)) && keys.is_sorted_by(|a, b| a < b), "{n}");
        }
    }

    /// Another version that gives other places would move what this one wrote.
    #[test]
    fn places_are_these() {
        assert_eq!(spread(3), ["F", "V", "k"]);
        assert_eq!((spread(61)[0].as_str(), spread(61)[60].as_str()), ("1", "z"));
        assert_eq!((spread(62)[0].as_str(), spread(62)[61].as_str()), ("0z", "z"));
        for (low, high, key) in [
            ("", None, "V"),
            ("V", None, "k"),
            ("z", None, "zV"),
            ("V", Some("X"), "W"),
            ("V", Some("W"), "VV"),
            ("V", Some("WV"), "W"),
            ("Vz", Some("W"), "VzV"),
            ("VA", Some("VC"), "VB"),
            ("", Some("1"), "0V"),
            ("0V", Some("1"), "0k"),
            ("", Some("0V"), "0F"),
        ] {
            let found = midpoint(low.as_bytes(), high.map(str::as_bytes));
            assert_eq!(String::from_utf8(found).unwrap(), key, "{low} {high:?}");
        }
    }

    #[test]
    fn many_at_one_place_get_short_keys() {
        for count in [0, 1, 2, 3, 5, 40, 200] {
            let mut list = vec![None; count + 2];
            (list[0], list[count + 1]) = (Some((0, "V")), Some((1, "W")));
            let keys = assign(&list);
            assert!(keys.len() == count + 2 && keys.is_sorted_by(|a, b| a < b), "{keys:?}");
            assert!(keys.iter().all(|key| is_valid(key) && key.len() <= 3), "{keys:?}");
        }
    }

    #[test]
    fn a_key_is_valid_that_leaves_room_below() {
        for (key, valid) in
            [("V", true), ("", false), ("V0", false), ("0V", true), ("V!", false), ("é", false)]
        {
            assert_eq!(is_valid(key), valid, "{key}");
        }
        assert!(is_valid(&"V".repeat(KEY_MAX_BYTES)) && !is_valid(&"V".repeat(KEY_MAX_BYTES + 1)));
        // One that is not valid is replaced.
        assert_eq!(assign(&[Some((0, "V")), Some((1, "W0"))]), ["V", "k"]);
    }

    proptest! {
        #[test]
        fn any_rearrangement_sorts_and_moves_little(size in 1usize..20, moves in prop::collection::vec((0usize..30, 0usize..30), 0..40)) {
            let mut list: Vec<(usize, String)> = spread(size).into_iter().enumerate().collect();
            for (n, (from, to)) in moves.into_iter().enumerate() {
                let before = list.clone();
                let mut target: Vec<Option<(usize, &str)>> =
                    before.iter().enumerate().map(|(rank, (_, key))| Some((rank, key.as_str()))).collect();
                let moved = if from < target.len() { target.remove(from) } else { None };
                let to = to.min(target.len());
                target.insert(to, moved);
                let keys = assign(&target);
                prop_assert!(keys.is_sorted_by(|a, b| a < b) && keys.iter().all(|k| is_valid(k)), "{keys:?}");
                let changed = keys.iter().zip(&target).filter(|(k, t)| t.is_none_or(|t| t.1 != k.as_str())).count();
                prop_assert!(changed <= 1, "one move changes one key");
                list = keys.into_iter().map(|k| (n, k)).collect();
            }
        }
    }

    #[test]
    fn equal_keys_stay_until_something_must_go_between() {
        assert_eq!(assign(&[Some((0, "V")), Some((1, "V"))]), ["V", "V"]);
        let keys = assign(&[Some((0, "V")), None, Some((1, "V"))]);
        assert!(keys[0] == "V" && keys.is_sorted_by(|a, b| a < b), "{keys:?}");
    }
}
