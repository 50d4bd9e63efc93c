//! How long functions and files are, in lines, without their tests. Comments count: they are read as well.

use std::fmt;

use anyhow::{Context, Result};
use proc_macro2::Span;
use syn::spanned::Spanned;
use syn::visit::{self, Visit};

/// Lines that a function may have, from its name to its last brace.
const FUNCTION_LINES: usize = 70;
/// Lines that a file may have besides its tests.
const FILE_LINES: usize = 600;

/// Something longer than it may be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Size {
    /// `file PATH` or `function PATH NAME`.
    pub what: String,
    pub lines: usize,
}

impl fmt::Display for Size {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} {}", self.what, self.lines)
    }
}

/// What is too long in a file.
pub fn oversized(path: &str, text: &str) -> Result<Vec<Size>> {
    let file = syn::parse_file(text).with_context(|| format!("{path} is not Rust"))?;
    let mut visitor = Functions { path, owner: String::new(), found: Vec::new(), test_lines: 0 };
    visitor.visit_file(&file);
    let lines = text.lines().count() - visitor.test_lines;
    let mut found = visitor.found;
    if lines > FILE_LINES {
        found.insert(0, Size { what: format!("file {path}"), lines });
    }
    Ok(found)
}

struct Functions<'a> {
    path: &'a str,
    /// The type or trait whose functions are looked at, with `::`.
    owner: String,
    found: Vec<Size>,
    test_lines: usize,
}

impl Functions<'_> {
    fn function(&mut self, signature: &syn::Signature, end: Span) {
        let lines = lines_between(signature.span(), end);
        if lines > FUNCTION_LINES {
            let what = format!("function {} {}{}", self.path, self.owner, signature.ident);
            self.found.push(Size { what, lines });
        }
    }

    fn owned(&mut self, owner: String, look: impl FnOnce(&mut Self)) {
        let outer = std::mem::replace(&mut self.owner, owner);
        look(self);
        self.owner = outer;
    }
}

fn lines_between(start: Span, end: Span) -> usize {
    end.end().line - start.start().line + 1
}

/// `#[cfg(test)]` and `#[test]`, also `#[tokio::test]`.
fn is_test(attributes: &[syn::Attribute]) -> bool {
    attributes.iter().any(|attribute| match &attribute.meta {
        syn::Meta::List(list) => list.path.is_ident("cfg") && list.tokens.to_string().contains("test"),
        meta => meta.path().segments.last().is_some_and(|segment| segment.ident == "test"),
    })
}

fn attributes(item: &syn::Item) -> &[syn::Attribute] {
    match item {
        syn::Item::Fn(item) => &item.attrs,
        syn::Item::Impl(item) => &item.attrs,
        syn::Item::Mod(item) => &item.attrs,
        syn::Item::Use(item) => &item.attrs,
        _ => &[],
    }
}

/// The last word of a type's path: enough to tell functions of one file apart.
fn name_of(of: &syn::Type) -> String {
    match of {
        syn::Type::Path(path) => path.path.segments.last().map(|last| last.ident.to_string()).unwrap_or_default(),
        syn::Type::Reference(reference) => name_of(&reference.elem),
        _ => String::new(),
    }
}

impl<'ast> Visit<'ast> for Functions<'_> {
    fn visit_item(&mut self, item: &'ast syn::Item) {
        if is_test(attributes(item)) {
            self.test_lines += lines_between(item.span(), item.span());
        } else {
            visit::visit_item(self, item);
        }
    }

    fn visit_item_fn(&mut self, item: &'ast syn::ItemFn) {
        self.function(&item.sig, item.block.span());
        visit::visit_item_fn(self, item);
    }

    fn visit_item_impl(&mut self, item: &'ast syn::ItemImpl) {
        self.owned(format!("{}::", name_of(&item.self_ty)), |visitor| visit::visit_item_impl(visitor, item));
    }

    fn visit_item_trait(&mut self, item: &'ast syn::ItemTrait) {
        self.owned(format!("{}::", item.ident), |visitor| visit::visit_item_trait(visitor, item));
    }

    fn visit_impl_item_fn(&mut self, item: &'ast syn::ImplItemFn) {
        self.function(&item.sig, item.block.span());
        visit::visit_impl_item_fn(self, item);
    }

    fn visit_trait_item_fn(&mut self, item: &'ast syn::TraitItemFn) {
        if let Some(block) = &item.default {
            self.function(&item.sig, block.span());
        }
        visit::visit_trait_item_fn(self, item);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(lines: usize) -> String {
        format!("{{\n{}}}\n", "    call();\n".repeat(lines - 2))
    }

    fn check(text: &str, expected: &[&str]) {
        let found: Vec<String> = oversized("a.rs", text).unwrap().iter().map(ToString::to_string).collect();
        assert_eq!(found, expected, "{text}");
    }

    #[test]
    fn long_functions_are_found_wherever_they_are() {
        check(&format!("fn a() {}", body(70)), &[]);
        check(&format!("/// Says why.\n#[must_use]\nfn a() {}", body(71)), &["function a.rs a 71"]);
        check(&format!("impl A {{ fn b() {} }}", body(80)), &["function a.rs A::b 80"]);
        check(&format!("impl B for &a::A<C> {{ fn b() {} }}", body(80)), &["function a.rs A::b 80"]);
        check(&format!("trait A {{ fn b() {} }}", body(80)), &["function a.rs A::b 80"]);
        check(&format!("mod c {{ fn b() {} }}", body(80)), &["function a.rs b 80"]);
        check(&format!("fn a(\n    b: u8,\n) {}", body(69)), &["function a.rs a 71"]);
    }

    #[test]
    fn tests_do_not_count() {
        check(&format!("#[cfg(test)]\nmod tests {{ fn b() {} }}", body(700)), &[]);
        check(&format!("#[tokio::test]\nasync fn b() {}", body(700)), &[]);
        check(
            &format!("const A: &str = \"fn b() {{ {}\";\n#[cfg(test)]\nmod tests {{ }}", "\n".repeat(600)),
            &["file a.rs 601"],
        );
    }
}
