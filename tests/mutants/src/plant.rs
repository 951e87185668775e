//! Rewrites the source so that it holds every mutant, each behind `crate::mutant(N)`.
//!
//! Text is only put in, and what is put in for an expression goes around it: its mutated forms with the operands as
//! they were written, then the expression itself, in which others are planted in turn.

use std::{collections::BTreeMap, ops::Range};

use proc_macro2::LineColumn;
use syn::{BinOp, Expr, spanned::Spanned, visit::Visit};

use crate::{Mutant, Place};

/// What the planted source needs, for the end of its `lib.rs`.
pub const SWITCH: &str = r#"
static MUTANT: std::sync::LazyLock<u32> =
    std::sync::LazyLock::new(|| std::env::var("TUYEN_MUTANT").map_or(u32::MAX, |n| n.parse().unwrap()));

/// Whether this mutant is active.
#[inline]
pub(crate) fn mutant(n: u32) -> bool {
    *MUTANT == n || *MUTANT == u32::MAX - 1 && reached(n)
}

/// Notes which mutants are come by at all.
#[cold]
fn reached(n: u32) -> bool {
    use std::sync::atomic::{AtomicBool, Ordering::Relaxed};
    static SEEN: [AtomicBool; 1 << 16] = [const { AtomicBool::new(false) }; 1 << 16];
    if !SEEN[n as usize].load(Relaxed) && !SEEN[n as usize].swap(true, Relaxed) {
        let path = std::env::var_os("TUYEN_MUTANTS_REACHED").unwrap();
        let mut file = std::fs::OpenOptions::new().create(true).append(true).open(path).unwrap();
        std::io::Write::write_all(&mut file, format!("{n}\n").as_bytes()).unwrap();
    }
    false
}
"#;
/// What planted code is warned of, or refused for.
pub const ALLOWED: &str =
    "#![allow(warnings, arithmetic_overflow, unconditional_panic, unconditional_recursion)]\n";

/// A planted file, and where in it the mutants are.
#[derive(Default)]
pub struct Planted {
    pub text: String,
    pub places: Vec<(Range<usize>, u32)>,
}

/// Plants these mutants of one file.
pub fn plant<'a>(source: &str, mutants: impl IntoIterator<Item = &'a Mutant>) -> syn::Result<Planted> {
    let mut by_place: BTreeMap<(&str, Place), Vec<&Mutant>> = BTreeMap::new();
    for mutant in mutants {
        by_place.entry((&mutant.genre, mutant.span.start)).or_default().push(mutant);
    }
    let file = syn::parse_file(source)?;
    let mut planter = Planter { source, by_place, insertions: Vec::new(), in_const: false };
    planter.visit_file(&file);
    Ok(planter.put_in())
}

/// Text for one place; pieces that are a mutant's name it.
struct Insertion {
    at: usize,
    /// Of two at one place what closes comes first, the inner one before the outer one; then what opens, the outer one
    /// first.
    rank: isize,
    pieces: Vec<(Option<u32>, String)>,
}

struct Planter<'a> {
    source: &'a str,
    by_place: BTreeMap<(&'a str, Place), Vec<&'a Mutant>>,
    insertions: Vec<Insertion>,
    in_const: bool,
}

impl<'a> Planter<'a> {
    /// The mutants of this genre at this place, unless nothing can be decided there when the program runs.
    fn here(&self, genre: &'a str, at: LineColumn) -> Vec<&'a Mutant> {
        let place = Place { line: at.line, column: at.column + 1 };
        let here = self.by_place.get(&(genre, place)).filter(|_| !self.in_const);
        here.cloned().unwrap_or_default()
    }

    fn text(&self, of: &impl Spanned) -> &'a str {
        &self.source[of.span().byte_range()]
    }

    fn before(&mut self, at: usize, pieces: Vec<(Option<u32>, String)>) {
        let rank = self.insertions.len() as isize + 1;
        self.insertions.push(Insertion { at, rank, pieces });
    }

    fn around(&mut self, range: Range<usize>, pieces: Vec<(Option<u32>, String)>, end: &str) {
        self.before(range.start, pieces);
        let rank = -(self.insertions.len() as isize);
        self.insertions.push(Insertion { at: range.end, rank, pieces: vec![(None, end.to_owned())] });
    }

    /// Chooses between an expression and its mutated forms.
    fn choose(&mut self, range: Range<usize>, forms: Vec<(u32, String)>) {
        if forms.is_empty() {
            return;
        }
        let mut pieces = vec![(None, "(".to_owned())];
        for (n, form) in forms {
            pieces.push((None, format!("if crate::mutant({n}) {{ ")));
            pieces.push((Some(n), form));
            pieces.push((None, " } else ".to_owned()));
        }
        pieces.push((None, "{ ".to_owned()));
        self.around(range, pieces, " })");
    }

    fn function(
        &mut self,
        constness: Option<syn::token::Const>,
        block: &syn::Block,
        visit: impl FnOnce(&mut Self),
    ) {
        let outside = std::mem::replace(&mut self.in_const, constness.is_some());
        if let Some(first) = block.stmts.first() {
            for mutant in self.here("FnValue", first.span().start()) {
                let begin = (None, format!("if crate::mutant({}) {{ return ", mutant.number));
                let end = (None, "; } ".to_owned());
                let value = (Some(mutant.number), mutant.replacement.clone());
                self.before(first.span().byte_range().start, vec![begin, value, end]);
            }
        }
        visit(self);
        self.in_const = outside;
    }

    fn constant(&mut self, visit: impl FnOnce(&mut Self)) {
        let outside = std::mem::replace(&mut self.in_const, true);
        visit(self);
        self.in_const = outside;
    }

    fn put_in(mut self) -> Planted {
        self.insertions.sort_by_key(|one| (one.at, one.rank));
        let (mut planted, mut from) = (Planted::default(), 0);
        for Insertion { at, pieces, .. } in self.insertions {
            planted.text.push_str(&self.source[from..at]);
            from = at;
            for (mutant, piece) in pieces {
                let begin = planted.text.len();
                planted.text.push_str(&piece);
                planted.places.extend(mutant.map(|n| (begin..planted.text.len(), n)));
            }
        }
        planted.text.push_str(&self.source[from..]);
        planted
    }
}

impl<'ast> Visit<'ast> for Planter<'_> {
    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(item.sig.constness, &item.block, |this| syn::visit::visit_item_fn(this, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(item.sig.constness, &item.block, |this| syn::visit::visit_impl_item_fn(this, item));
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        let Some(block) = &item.default else { return };
        self.function(item.sig.constness, block, |this| syn::visit::visit_trait_item_fn(this, item));
    }

    fn visit_item_const(&mut self, item: &'ast syn::ItemConst) {
        self.constant(|this| syn::visit::visit_item_const(this, item));
    }

    fn visit_item_static(&mut self, item: &'ast syn::ItemStatic) {
        self.constant(|this| syn::visit::visit_item_static(this, item));
    }

    fn visit_impl_item_const(&mut self, item: &'ast syn::ImplItemConst) {
        self.constant(|this| syn::visit::visit_impl_item_const(this, item));
    }

    fn visit_type(&mut self, item: &'ast syn::Type) {
        self.constant(|this| syn::visit::visit_type(this, item));
    }

    fn visit_pat(&mut self, pat: &'ast syn::Pat) {
        self.constant(|this| syn::visit::visit_pat(this, pat));
    }

    fn visit_expr_binary(&mut self, binary: &'ast syn::ExprBinary) {
        if !has_let(&binary.left) && !has_let(&binary.right) {
            let (left, right) = (self.text(&binary.left), self.text(&binary.right));
            let form = |mutant: &Mutant| match binary.op {
                // What is assigned to stays as it is.
                op if assigns(&op) => (mutant.number, format!("{left} {} ({right})", mutant.replacement)),
                _ => (mutant.number, format!("({left}) {} ({right})", mutant.replacement)),
            };
            let forms = self.here("BinaryOperator", binary.op.span().start()).into_iter().map(form).collect();
            self.choose(binary.span().byte_range(), forms);
        }
        syn::visit::visit_expr_binary(self, binary);
    }

    fn visit_expr_unary(&mut self, unary: &'ast syn::ExprUnary) {
        let operand = self.text(&unary.expr);
        let mutants = self.here("UnaryOperator", unary.op.span().start());
        let forms = mutants.into_iter().map(|mutant| (mutant.number, operand.to_owned())).collect();
        self.choose(unary.span().byte_range(), forms);
        syn::visit::visit_expr_unary(self, unary);
    }

    fn visit_arm(&mut self, arm: &'ast syn::Arm) {
        let guard = arm.guard.as_ref().map(|(_, guard)| guard);
        for mutant in self.here("MatchArm", arm.pat.span().start()) {
            let unless = format!("!crate::mutant({})", mutant.number);
            match guard {
                Some(guard) => {
                    self.before(guard.span().byte_range().start, vec![(Some(mutant.number), unless + " && ")])
                }
                None => self.before(
                    arm.pat.span().byte_range().end,
                    vec![(Some(mutant.number), format!(" if {unless}"))],
                ),
            }
        }
        if let Some(guard) = guard.filter(|guard| !has_let(guard)) {
            let mutants = self.here("MatchArmGuard", guard.span().start());
            let forms =
                mutants.into_iter().map(|mutant| (mutant.number, mutant.replacement.clone())).collect();
            self.choose(guard.span().byte_range(), forms);
        }
        syn::visit::visit_arm(self, arm);
    }

    /// A field that is left out has the value that it has in the rest.
    fn visit_expr_struct(&mut self, literal: &'ast syn::ExprStruct) {
        if let Some(rest) = &literal.rest {
            let rest = match self.text(rest) {
                "Default::default()" => format!("<{} as Default>::default()", self.text(&literal.path)),
                rest => format!("({rest})"),
            };
            for field in &literal.fields {
                let syn::Member::Named(name) = &field.member else { continue };
                let mutants = self.here("StructField", field.span().start());
                let form = |mutant: &Mutant| (mutant.number, format!("{rest}.{name}"));
                let forms: Vec<_> = mutants.into_iter().map(form).collect();
                if field.colon_token.is_none() && !forms.is_empty() {
                    self.before(field.span().byte_range().start, vec![(None, format!("{name}: "))]);
                }
                self.choose(field.expr.span().byte_range(), forms);
            }
        }
        syn::visit::visit_expr_struct(self, literal);
    }
}

fn assigns(op: &BinOp) -> bool {
    use BinOp::*;
    matches!(
        op,
        AddAssign(_)
            | SubAssign(_)
            | MulAssign(_)
            | DivAssign(_)
            | RemAssign(_)
            | BitXorAssign(_)
            | BitAndAssign(_)
            | BitOrAssign(_)
            | ShlAssign(_)
            | ShrAssign(_)
    )
}

/// Whether an expression is a chain with a `let` in it, around which nothing can stand.
fn has_let(expr: &Expr) -> bool {
    match expr {
        Expr::Let(_) => true,
        Expr::Binary(binary) => has_let(&binary.left) || has_let(&binary.right),
        _ => false,
    }
}
