use super::*;

fn place(addr: u64) -> Place {
    Place::new(1, addr, 1)
}

#[test]
fn a_copy_that_nothing_was_done_under_leaves_when_its_address_is_anothers() {
    let mut tree = Tree::default();
    let task = tree.node(place(1));
    for n in 1..1_000 {
        let timer = tree.copy(place(2), task, n);
        let callback = tree.copy(place(3), task, n);
        assert!(tree.get(timer).is_some() && tree.get(callback).is_some());
    }
    assert_eq!(tree.nodes.len(), 3);
}

#[test]
fn what_something_was_done_under_is_known_though_it_is_over() {
    let mut tree = Tree::default();
    let task = tree.node(place(1));
    let child = tree.copy(place(2), task, 1);
    assert_eq!(tree.node(place(2)), child);
    tree.bind(task, SpanRef(7));
    tree.copy(place(2), task, 2);
    assert!(tree.over(child) && tree.inherits(child));
    // So is what was copied from.
    let parent = tree.node(place(2));
    let grandchild = tree.copy(place(3), parent, 3);
    tree.copy(place(2), task, 4);
    assert!(tree.over(parent) && tree.inherits(grandchild));
}

/// What is remembered of settled calls is little, and there may be `MAX_CALLS` of them.
#[test]
fn a_remembered_call_is_small() {
    let size = size_of::<super::super::state::Call>();
    assert!(size <= 32, "{size} bytes");
}
