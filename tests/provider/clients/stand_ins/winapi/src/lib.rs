#![allow(clippy::upper_case_acronyms)]

pub mod shared {
    pub mod minwindef {
        pub type DWORD = u32;
    }
    pub mod ntdef {
        use std::ffi::c_void;
        pub type HRESULT = i32;
        pub type LPCWSTR = *const u16;
        pub type LPWSTR = *mut u16;
        pub type PVOID = *mut c_void;
        pub type VOID = c_void;
    }
}

pub mod um {
    pub mod winbase {
        use std::ffi::c_void;
        extern "C" {
            pub fn LocalFree(memory: *mut c_void) -> *mut c_void;
        }
    }
}
