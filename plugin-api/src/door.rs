//! The Rust door: the `abi_stable` root module that hands over the table, and the macro that opens it.

use abi_stable::{
    StableAbi,
    library::{CheckTypeLayout, LibHeader, RootModule, RootModuleResult},
    package_version_strings,
    prefix_type::PrefixTypeTrait,
    sabi_types::VersionStrings,
};

use crate::{abi::ExporterV1, exporter::TelemetryExporter, table};

/// Root module of a Rust plugin. Frozen, like the table it holds.
#[repr(C)]
#[derive(StableAbi)]
#[sabi(kind(Prefix(prefix_ref = ExporterModuleRef)))]
#[sabi(missing_field(panic))]
pub struct ExporterModule {
    /// The plugin's functions.
    #[sabi(last_prefix_field)]
    pub exporter: ExporterV1,
}

impl RootModule for ExporterModuleRef {
    const BASE_NAME: &'static str = "magicapi_exporter";
    const NAME: &'static str = "magicapi_exporter";
    const VERSION_STRINGS: VersionStrings = package_version_strings!();
    abi_stable::declare_root_module_statics! {ExporterModuleRef}
}

/// What the door is made of, for [`export_plugin!`](crate::export_plugin).
#[must_use]
pub const fn header<E: TelemetryExporter>() -> LibHeader {
    // SAFETY: `module` returns a reference to `ExporterModule`, the module that this header is made for.
    unsafe { LibHeader::from_constructor::<ExporterModuleRef>(module::<E>, CheckTypeLayout::Yes) }
}

extern "C" fn module<E: TelemetryExporter>() -> RootModuleResult {
    abi_stable::library::__call_root_module_loader(|| {
        ExporterModule { exporter: function_table::<E>() }.leak_into_prefix()
    })
}

/// The functions of exporter `E` as its library hands them over, for a host that is linked with it, such as that of the
/// testkit. They are called by the rules of [`abi`](crate::abi).
#[must_use]
pub const fn function_table<E: TelemetryExporter>() -> ExporterV1 {
    table::exporter::<E>()
}

/// Makes this library a plugin: exports the exporter type, once per library.
///
/// ```ignore
/// export_plugin!(MyExporter);
/// ```
///
/// The library's `Cargo.toml` says `crate-type = ["cdylib"]`. A build with `panic = "abort"` is refused: the gateway
/// could not survive a panic of such a plugin.
#[macro_export]
macro_rules! export_plugin {
    ($exporter:ty) => {
        #[cfg(panic = "abort")]
        ::core::compile_error!(
            "a MagicAPI plugin must unwind: remove `panic = \"abort\"` from the profile in Cargo.toml, \
             so that a panic becomes a failed call instead of the end of the gateway"
        );

        const _: () = {
            // The name that `abi_stable` looks its root modules up by.
            #[unsafe(no_mangle)]
            #[allow(non_upper_case_globals)]
            static _1as_0lib_1header_0root_bmodule_bloader: $crate::__private::LibHeader =
                $crate::__private::header::<$exporter>();

            const DESCRIPTOR: $crate::Descriptor = <$exporter as $crate::TelemetryExporter>::DESCRIPTOR;

            #[used]
            #[cfg_attr(target_os = "linux", unsafe(link_section = ".note.magicapi"))]
            #[cfg_attr(target_os = "macos", unsafe(link_section = "__DATA,__magicapi"))]
            static NOTE: $crate::__private::Note<
                { $crate::__private::padded_length(&DESCRIPTOR, "unwind") },
            > = $crate::__private::Note::new(&DESCRIPTOR, "unwind");
        };
    };
}
