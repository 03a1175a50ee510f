//! Prints what is in a saved state, as the example dumpstate.c does, through Microsoft's own bindings of SDK 22000.
//!
//!     dump VMRS | BIN VSV

#![allow(non_upper_case_globals)] // names of Microsoft's, matched against

use std::ffi::c_void;
use std::ptr::null_mut;
use windows_sys::core::HRESULT;
use windows_sys::Win32::Foundation::{E_OUTOFMEMORY, S_OK};
use windows_sys::Win32::System::Hypervisor::*;

#[link(name = "vmsavedstatedumpprovider")]
unsafe extern "C" {}

const NUMBERS: [(&str, REGISTER_ID); 30] = [
    ("Rax", X64_RegisterRax), ("Rcx", X64_RegisterRcx), ("Rdx", X64_RegisterRdx), ("Rbx", X64_RegisterRbx),
    ("Rsp", X64_RegisterRsp), ("Rbp", X64_RegisterRbp), ("Rsi", X64_RegisterRsi), ("Rdi", X64_RegisterRdi),
    ("R8", X64_RegisterR8), ("R9", X64_RegisterR9), ("R10", X64_RegisterR10), ("R11", X64_RegisterR11),
    ("R12", X64_RegisterR12), ("R13", X64_RegisterR13), ("R14", X64_RegisterR14), ("R15", X64_RegisterR15),
    ("Rip", X64_RegisterRip), ("RFlags", X64_RegisterRFlags), ("Cr0", X64_RegisterCr0), ("Cr2", X64_RegisterCr2),
    ("Cr3", X64_RegisterCr3), ("Cr4", X64_RegisterCr4), ("Cr8", X64_RegisterCr8), ("Efer", X64_RegisterEfer),
    ("Dr0", X64_RegisterDr0), ("Dr1", X64_RegisterDr1), ("Dr2", X64_RegisterDr2), ("Dr3", X64_RegisterDr3),
    ("Dr6", X64_RegisterDr6), ("Dr7", X64_RegisterDr7),
];
const SEGMENTS: [(&str, REGISTER_ID); 8] = [
    ("Es", X64_RegisterEs), ("Cs", X64_RegisterCs), ("Ss", X64_RegisterSs), ("Ds", X64_RegisterDs),
    ("Fs", X64_RegisterFs), ("Gs", X64_RegisterGs), ("Ldtr", X64_RegisterLdtr), ("Tr", X64_RegisterTr),
];
const TABLES: [(&str, REGISTER_ID); 2] = [("Idtr", X64_RegisterIdtr), ("Gdtr", X64_RegisterGdtr)];

fn ok(code: HRESULT) {
    assert_eq!(code, S_OK, "{code:#010x}");
}

/// UTF-16 with a NUL: what PCWSTR is everywhere.
fn wide(text: &str) -> Vec<u16> {
    text.encode_utf16().chain([0]).collect()
}

fn load(paths: &[String]) -> *mut c_void {
    let mut handle = null_mut();
    let first = wide(&paths[0]);
    match paths.get(1) {
        None => ok(unsafe { LoadSavedStateFile(first.as_ptr(), &mut handle) }),
        Some(second) => ok(unsafe { LoadSavedStateFiles(first.as_ptr(), wide(second).as_ptr(), &mut handle) }),
    }
    handle
}

unsafe fn register(handle: *mut c_void, vp: u32, id: REGISTER_ID) -> VIRTUAL_PROCESSOR_REGISTER {
    let mut value = VIRTUAL_PROCESSOR_REGISTER::default();
    ok(GetRegisterValue(handle, vp, id as u32, &mut value));
    value
}

unsafe fn print_registers(handle: *mut c_void, vp: u32) {
    for (name, id) in NUMBERS {
        println!("  {name:8} {:#x}", register(handle, vp, id).Reg64);
    }
    for (name, id) in SEGMENTS {
        let s = register(handle, vp, id).X64.Segment;
        let attributes = s.Anonymous.Attributes;
        println!("  {name:8} {:#x} base {:#x} limit {:#x} attributes {attributes:#x}", s.Selector, s.Base, s.Limit);
    }
    for (name, id) in TABLES {
        let table = register(handle, vp, id).X64.Table;
        println!("  {name:8} base {:#x} limit {:#x}", table.Base, table.Limit);
    }
    let xmm = (0..16).map(|n| (format!("Xmm{n}"), X64_RegisterXmm0 + n));
    let mmx = (0..8).map(|n| (format!("FpMmx{n}"), X64_RegisterFpMmx0 + n));
    let status = [("FpState", X64_RegisterFpControlStatus), ("XmmState", X64_RegisterXmmControlStatus)];
    for (name, id) in xmm.chain(mmx).chain(status.map(|(name, id)| (name.to_string(), id))) {
        let value = register(handle, vp, id).Reg128;
        println!("  {name:8} 0x{:016x}{:016x}", value.High64, value.Low64);
    }
}

unsafe fn print_processor(handle: *mut c_void, vp: u32) {
    let (mut architecture, mut mode, mut kernel) = (Arch_Unknown, Paging_Invalid, 0);
    ok(GetArchitecture(handle, vp, &mut architecture));
    ok(GetPagingMode(handle, vp, &mut mode));
    ok(InKernelSpace(handle, vp, &mut kernel));
    let architecture = match architecture {
        Arch_x86 => "x86",
        Arch_x64 => "x64",
        _ => "?",
    };
    let mode = match mode {
        Paging_32Bit => "32 bit",
        Paging_Pae => "PAE",
        Paging_Long => "long",
        _ => "?",
    };
    println!("VP {vp}: {architecture}, paging {mode}, in {} space", if kernel != 0 { "kernel" } else { "user" });
    print_registers(handle, vp);
}

unsafe fn print_memory(handle: *mut c_void) {
    let (mut page_size, mut count, mut raw_size) = (0, 0, 0);
    assert_eq!(GetGuestPhysicalMemoryChunks(handle, &mut page_size, null_mut(), &mut count), E_OUTOFMEMORY);
    let mut chunks = vec![GPA_MEMORY_CHUNK::default(); count as usize];
    ok(GetGuestPhysicalMemoryChunks(handle, &mut page_size, chunks.as_mut_ptr(), &mut count));
    for chunk in chunks {
        let start = chunk.GuestPhysicalStartPageIndex * page_size;
        println!("Memory {start:#x}, {} pages of {page_size}", chunk.PageCount);
    }
    ok(GetGuestRawSavedMemorySize(handle, &mut raw_size));
    println!("Raw size {raw_size}");
}

fn main() {
    let paths: Vec<String> = std::env::args().skip(1).collect();
    let handle = load(&paths);
    let (mut count, mut levels, mut system) = (0, 0, GUEST_OS_INFO::default());
    unsafe {
        ok(GetVpCount(handle, &mut count));
        (0..count).for_each(|vp| print_processor(handle, vp));
        print_memory(handle);
        ok(GetGuestEnabledVirtualTrustLevels(handle, &mut levels));
        ok(GetGuestOsInfo(handle, 0, &mut system));
        println!("Virtual trust levels {levels:#x}\nGuest OS id {:#x}", system.AsUINT64);
        ok(ReleaseSavedStateFiles(handle));
    }
}
