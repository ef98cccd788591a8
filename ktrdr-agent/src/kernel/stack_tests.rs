//! How much stack the programs need, counted as Linux 5.10 does, which is stricter than later kernels and not at hand where
//! they are worked on: a program that needs more is refused there, and nowhere else.

use std::collections::{HashMap, HashSet};

use object::{
    LittleEndian as LE, Object, ObjectSection, ObjectSymbol, RelocationTarget, SectionIndex, SymbolKind,
};

use super::object::OBJECT;

/// `MAX_BPF_STACK`: of a program and all that it calls.
const MOST: u32 = 512;
/// What each function's part is rounded up to (`check_max_stack_depth` of `kernel/bpf/verifier.c`, 5.10).
const ROUNDED: u32 = 32;
const FRAME: u8 = 10;

/// One instruction (`struct bpf_insn`).
#[derive(Clone, Copy)]
struct Instruction {
    code: u8,
    to: u8,
    from: u8,
    offset: i16,
    immediate: i32,
}

impl Instruction {
    const SIZE: usize = 8;

    fn read(bytes: &[u8]) -> Self {
        Self {
            code: bytes[0],
            to: bytes[1] & 15,
            from: bytes[1] >> 4,
            offset: i16::from_le_bytes([bytes[2], bytes[3]]),
            immediate: i32::from_le_bytes(bytes[4..8].try_into().unwrap()),
        }
    }

    /// `BPF_CALL` with `BPF_PSEUDO_CALL`: another function of the object. Relocated calls bear it, too.
    fn calls_function(self) -> bool {
        self.code == 0x85 && self.from == 1
    }
}

/// How far below the frame pointer a function reaches, in bytes.
fn depth(code: &[u8]) -> u32 {
    let mut deepest = 0;
    // Registers that have just been made the frame pointer: an offset is added next.
    let mut frames = HashSet::from([FRAME]);
    for i in code.chunks_exact(Instruction::SIZE).map(Instruction::read) {
        let below = |offset: i32| offset.min(0).unsigned_abs();
        match i.code & 7 {
            // BPF_LDX, and BPF_ST, BPF_STX.
            1 if i.from == FRAME => deepest = deepest.max(below(i.offset.into())),
            2 | 3 if i.to == FRAME => deepest = deepest.max(below(i.offset.into())),
            _ => {}
        }
        match i.code {
            // BPF_ALU64 | BPF_MOV | BPF_X
            0xbf if i.from == FRAME => {
                frames.insert(i.to);
            }
            // BPF_ALU64 | BPF_ADD | BPF_K
            0x07 if frames.contains(&i.to) => {
                deepest = deepest.max(below(i.immediate));
                frames.remove(&i.to);
            }
            // BPF_LD, BPF_LDX, BPF_ALU and BPF_ALU64 write a register.
            code if matches!(code & 7, 0 | 1 | 4 | 7) => {
                frames.remove(&i.to);
            }
            _ => {}
        }
    }
    deepest
}

/// Where a function is: its section, and the place in it.
type Place = (SectionIndex, u64);

struct Function {
    name: String,
    depth: u32,
    calls: HashSet<Place>,
}

fn functions(object: &[u8]) -> HashMap<Place, Function> {
    let file = object::read::elf::ElfFile64::<LE>::parse(object).unwrap();
    let sections: HashMap<SectionIndex, _> = file
        .sections()
        .map(|section| {
            let moved: HashMap<u64, _> = section.relocations().collect();
            (section.index(), (section.data().unwrap(), moved))
        })
        .collect();
    let mut functions = HashMap::new();
    for symbol in file.symbols().filter(|symbol| symbol.kind() == SymbolKind::Text && symbol.size() > 0) {
        let (section, begin) = (symbol.section_index().unwrap(), symbol.address());
        let (data, moved) = &sections[&section];
        let code = &data[begin as usize..(begin + symbol.size()) as usize];
        let mut calls = HashSet::new();
        for (n, i) in code.chunks_exact(Instruction::SIZE).map(Instruction::read).enumerate() {
            if !i.calls_function() {
                continue;
            }
            let at = begin + (n * Instruction::SIZE) as u64;
            // In instructions, from behind this one.
            let distance = (i64::from(i.immediate) + 1) * Instruction::SIZE as i64;
            let called = match moved.get(&at).map(object::Relocation::target) {
                None => (section, at.strict_add_signed(distance)),
                Some(RelocationTarget::Symbol(target)) => {
                    let target = file.symbol_by_index(target).unwrap();
                    let begin = if target.kind() == SymbolKind::Section { distance } else { 0 };
                    (target.section_index().unwrap(), target.address().strict_add_signed(begin))
                }
                Some(other) => panic!("a call of {other:?}"),
            };
            calls.insert(called);
        }
        let name = symbol.name().unwrap().to_owned();
        functions.insert((section, begin), Function { name, depth: depth(code), calls });
    }
    functions
}

/// Of a function and the deepest way down from it.
fn needed(functions: &HashMap<Place, Function>, place: Place) -> u32 {
    let function = &functions[&place];
    let below = function.calls.iter().map(|called| needed(functions, *called)).max();
    function.depth.max(1).next_multiple_of(ROUNDED) + below.unwrap_or(0)
}

#[test]
fn programs_fit_the_stack_as_old_kernels_count_it() {
    let functions = functions(OBJECT);
    let mut all: Vec<_> =
        functions.iter().map(|(place, function)| (needed(&functions, *place), &function.name)).collect();
    all.sort();
    for (needed, name) in &all {
        println!("{needed:4} {name}");
    }
    assert!(all.iter().any(|(_, name)| *name == "sys_exit"), "the programs were found");
    let calls = functions.values().map(|function| function.calls.len()).sum::<usize>();
    assert!(calls > 10, "so were the functions that they call: {calls}");
    let (most, name) = all.last().unwrap();
    assert!(*most <= MOST, "{name} needs {most} bytes of stack, and Linux 5.10 has {MOST}");
}

#[test]
fn the_frame_is_followed_through_pointers_and_not_beyond() {
    let i = |code: u8, to: u8, from: u8, offset: i16, immediate: i32| {
        let [low, high] = offset.to_le_bytes();
        [&[code, to | from << 4, low, high][..], &immediate.to_le_bytes()[..]].concat()
    };
    let pointer = [i(0xbf, 1, 10, 0, 0), i(0x07, 1, 0, 0, -40)].concat();
    assert_eq!(depth(&pointer), 40);
    let other = [i(0xbf, 1, 10, 0, 0), i(0xb7, 1, 0, 0, 0), i(0x07, 1, 0, 0, -40)].concat();
    assert_eq!(depth(&other), 0, "the register was written meanwhile");
    assert_eq!(depth(&i(0x7b, 10, 1, -24, 0)), 24, "a store");
    assert_eq!(depth(&i(0x79, 1, 10, -16, 0)), 16, "a load");
    assert_eq!(depth(&i(0x7b, 2, 1, -24, 0)), 0, "a store through another register");
}
