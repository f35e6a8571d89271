use abi_stable::{
    library::{CheckTypeLayout, RootModule, RootModuleResult},
    package_version_strings,
    sabi_types::VersionStrings,
    std_types::RErr,
};

use super::*;

/// Declares a root module that is somebody else's idea of the contract.
macro_rules! module {
    ($name:ident, $module:ident, $reference:ident, $field:ty, $version:expr) => {
        #[allow(dead_code, unreachable_pub, reason = "only its layout is used")]
        mod $name {
            use super::*;

            #[repr(C)]
            #[allow(dead_code, reason = "only the layout counts")]
            #[derive(StableAbi)]
            #[sabi(kind(Prefix(prefix_ref = $reference)))]
            #[sabi(missing_field(panic))]
            pub(super) struct $module {
                #[sabi(last_prefix_field)]
                pub exporter: $field,
            }

            impl RootModule for $reference {
                const BASE_NAME: &'static str = "magicapi_exporter";
                const NAME: &'static str = "magicapi_exporter";
                const VERSION_STRINGS: VersionStrings = $version;
                abi_stable::declare_root_module_statics! {$reference}
            }
        }
    };
}

module!(newer, ExporterModule, NewerRef, u64, VersionStrings::new("2.0.0"));
module!(other, ExporterModule, OtherRef, u64, package_version_strings!());

extern "C" fn fails() -> RootModuleResult {
    RErr(abi_stable::library::RootModuleError::Unwound)
}

extern "C" fn never() -> RootModuleResult {
    panic!("a module whose layout was refused was used all the same")
}

fn refusal<M: RootModule>(
    check: CheckTypeLayout,
    constructor: extern "C" fn() -> RootModuleResult,
) -> LoadError {
    // SAFETY: the constructors above return no module.
    let header = unsafe { LibHeader::from_constructor::<M>(constructor, check) };
    let header: &'static LibHeader = Box::leak(Box::new(header));
    // SAFETY: an `AbiHeaderRef` is a pointer to a header, which is how `dlsym` makes one.
    let header = unsafe { std::mem::transmute::<&'static LibHeader, AbiHeaderRef>(header) };
    table(header, "tally", Path::new("/p/x.so")).unwrap_err()
}

#[test]
fn another_major_version_is_refused_before_the_layout_is_looked_at() {
    let error = refusal::<newer::NewerRef>(CheckTypeLayout::Yes, never);
    assert!(matches!(error, LoadError::AbiVersion { found: 2, .. }), "{error}");
    assert!(error.to_string().contains("plugin tally was built for ABI 2"), "{error}");
}

#[test]
fn another_table_under_the_same_version_is_refused_in_one_sentence() {
    let error = refusal::<other::OtherRef>(CheckTypeLayout::Yes, never);
    assert!(matches!(error, LoadError::Layout { .. }), "{error}");
    assert!(error.to_string().len() < 300, "{error}");
}

#[test]
fn a_header_without_a_layout_is_refused() {
    let error = refusal::<ExporterModuleRef>(CheckTypeLayout::No, never);
    assert!(error.to_string().contains("it states no layout"), "{error}");
}

#[test]
fn an_entry_function_that_fails_is_refused() {
    let error = refusal::<ExporterModuleRef>(CheckTypeLayout::Yes, fails);
    assert!(matches!(error, LoadError::Module { .. }), "{error}");
}

#[test]
fn something_that_is_no_header_is_refused() {
    static NONSENSE: [u64; 32] = [7; 32];
    // SAFETY: it is as large as a header, and only its first bytes are looked at.
    let header = unsafe { std::mem::transmute::<&'static [u64; 32], AbiHeaderRef>(&NONSENSE) };
    let error = table(header, "tally", Path::new("/p/x.so")).unwrap_err();
    assert!(matches!(error, LoadError::Header { .. }), "{error}");
}

#[test]
fn a_table_that_lies_about_itself_is_refused() {
    let sound = crate::loader::calls::tests::table();
    let check = |table| check_table(table, "tally", Path::new("/p/x.so"));
    assert!(check(sound).is_ok());
    let error = check(ExporterV1 { abi_version: 3, ..sound }).unwrap_err();
    assert!(matches!(error, LoadError::AbiVersion { found: 3, .. }), "{error}");
    let error = check(ExporterV1 { struct_size: 8, ..sound }).unwrap_err();
    assert!(matches!(error, LoadError::Table { found: 8, .. }), "{error}");
}
