//! Lists of experts, newest first: what the policies made of queues share.

/// A place in a list that is not there.
const NONE: u32 = u32::MAX;

/// The list of an expert that is in no list.
const NOWHERE: u8 = u8::MAX;

/// Some lists over the experts of a model, by dense index. An expert is in at most one.
pub(super) struct Lists {
    ends: Vec<Ends>,
    /// By dense index.
    nodes: Vec<Node>,
}

#[derive(Clone)]
struct Ends {
    newest: u32,
    oldest: u32,
    len: u32,
}

#[derive(Clone, Copy)]
struct Node {
    /// Neighbours in the list; anything if the expert is in none.
    newer: u32,
    older: u32,
    list: u8,
    /// For the policy's own use.
    uses: u8,
}

impl Lists {
    /// `n_lists` empty ones.
    pub(super) fn new(n_lists: u8, n_total: usize) -> Self {
        let ends = Ends {
            newest: NONE,
            oldest: NONE,
            len: 0,
        };
        let node = Node {
            newer: NONE,
            older: NONE,
            list: NOWHERE,
            uses: 0,
        };
        Self {
            ends: vec![ends; n_lists.into()],
            nodes: vec![node; n_total],
        }
    }

    pub(super) fn len(&self, list: u8) -> u32 {
        self.ends[list as usize].len
    }

    /// The list `index` is in.
    pub(super) fn list_of(&self, index: u32) -> Option<u8> {
        Some(self.nodes[index as usize].list).filter(|&list| list != NOWHERE)
    }

    /// A number that goes with `index`, whichever list it is in.
    pub(super) fn uses(&self, index: u32) -> u8 {
        self.nodes[index as usize].uses
    }

    /// The experts of `list`, oldest first.
    pub(super) fn oldest_first(&self, list: u8) -> impl Iterator<Item = u32> {
        std::iter::successors(self.oldest(list), |&index| self.newer(index))
    }

    /// The first expert of the first of `lists` that has any for which `pinned` is false.
    pub(super) fn oldest_free(&self, lists: &[u8], pinned: &dyn Fn(u32) -> bool) -> Option<u32> {
        let mut candidates = lists.iter().flat_map(|&list| self.oldest_first(list));
        candidates.find(|&index| !pinned(index))
    }

    /// The first expert of `list`.
    pub(super) fn oldest(&self, list: u8) -> Option<u32> {
        Some(self.ends[list as usize].oldest).filter(|&index| index != NONE)
    }

    /// The next newer expert in the list of `index`.
    pub(super) fn newer(&self, index: u32) -> Option<u32> {
        Some(self.nodes[index as usize].newer).filter(|&index| index != NONE)
    }

    /// Makes `index` the newest of `list`, whatever list it was in.
    pub(super) fn push(&mut self, index: u32, list: u8) {
        self.take(index);
        self.link(index, list);
    }

    /// Changes the number that goes with `index`.
    pub(super) fn set_uses(&mut self, index: u32, uses: u8) {
        self.nodes[index as usize].uses = uses;
    }

    /// Takes `index` out of its list, if it is in one.
    pub(super) fn take(&mut self, index: u32) {
        let Node {
            newer, older, list, ..
        } = self.nodes[index as usize];
        if list == NOWHERE {
            return;
        }
        let ends = &mut self.ends[list as usize];
        match newer {
            NONE => ends.newest = older,
            newer => self.nodes[newer as usize].older = older,
        }
        match older {
            NONE => ends.oldest = newer,
            older => self.nodes[older as usize].newer = newer,
        }
        ends.len -= 1;
        self.nodes[index as usize].list = NOWHERE;
    }

    /// Makes `index`, which is in no list, the newest of `list`.
    fn link(&mut self, index: u32, list: u8) {
        let ends = &mut self.ends[list as usize];
        let older = std::mem::replace(&mut ends.newest, index);
        match older {
            NONE => ends.oldest = index,
            older => self.nodes[older as usize].newer = index,
        }
        ends.len += 1;
        let node = &mut self.nodes[index as usize];
        (node.newer, node.older, node.list) = (NONE, older, list);
    }

    /// Panics if the lists are inconsistent.
    pub(super) fn validate(&self) {
        for (list, ends) in (0..).zip(&self.ends) {
            let mut newer = NONE;
            let mut index = ends.newest;
            for _ in 0..ends.len {
                let node = &self.nodes[index as usize];
                assert_eq!((node.list, node.newer), (list, newer), "expert {index}");
                (newer, index) = (index, node.older);
            }
            assert_eq!((index, newer), (NONE, ends.oldest), "list {list}");
        }
        let n_listed = self.nodes.iter().filter(|n| n.list != NOWHERE).count();
        let n_in_lists: u32 = self.ends.iter().map(|ends| ends.len).sum();
        assert_eq!(n_listed, n_in_lists as usize);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 20 000 random changes, against plain vectors.
    #[test]
    fn lists_are_those_of_the_plain_way() {
        let mut lists = Lists::new(3, 8);
        let mut plain: [Vec<u32>; 3] = Default::default();
        let mut random = 1u64;
        for step in 0..20_000 {
            random = random
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            let below = |limit: u64, shift: u32| (random >> shift) % limit;
            let index = below(8, 33) as u32;
            plain
                .iter_mut()
                .for_each(|list| list.retain(|&i| i != index));
            match below(4, 40) as usize {
                3 => lists.take(index),
                list => {
                    lists.push(index, list as u8);
                    plain[list].push(index);
                }
            }
            lists.validate();
            for (list, plain) in (0..).zip(&plain) {
                let found: Vec<_> = lists.oldest_first(list).collect();
                assert_eq!(
                    (&found, lists.len(list) as usize),
                    (plain, plain.len()),
                    "step {step}"
                );
            }
        }
    }

    #[test]
    fn the_last_pushed_is_the_newest() {
        let mut lists = Lists::new(2, 4);
        for index in [2, 0, 3, 0] {
            lists.push(index, 1);
        }
        assert_eq!(lists.oldest_first(1).collect::<Vec<_>>(), [2, 3, 0]);
        assert_eq!((lists.len(0), lists.len(1)), (0, 3));
        assert_eq!((lists.list_of(1), lists.list_of(2)), (None, Some(1)));
        assert_eq!((lists.newer(2), lists.newer(0)), (Some(3), None));
    }
}
