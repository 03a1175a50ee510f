/* What the Windows headers would bring: the few base types, result codes and macros that the interface uses.
 *
 * SPDX-License-Identifier: Apache-2.0
 * Written from the published description of the interface; no part of Microsoft's headers is in it.
 *
 * Width of LPCWSTR and LPWSTR outside of Windows:
 *   default             wchar_t, 4 bytes; the plain names then mean the W32 variants
 *   VMSAVEDSTATE_UTF16  UTF-16 units, as the plain exported names take them; also where wchar_t has 2 bytes
 */
#ifndef VMSAVEDSTATECOMPAT_H
#define VMSAVEDSTATECOMPAT_H

#include <stddef.h>
#include <stdint.h>
#include <wchar.h>

#if defined(__cplusplus)
#define EXTERN_C extern "C"
#else
#define EXTERN_C extern
#endif

/* Structures without a name inside of others are older than the standards that have them. */
#if defined(__GNUC__)
#define VMSAVEDSTATE_UNNAMED __extension__
#else
#define VMSAVEDSTATE_UNNAMED
#endif

#define WINAPI
#define CALLBACK
#define CONST const
#define VOID void

/* SAL annotations mean nothing to these compilers. */
#ifndef _In_
#define _In_
#define _In_opt_
#define _Out_
#define _Out_opt_
#define _Inout_
#define _Inout_opt_
#define _Outptr_
#define _Outptr_result_z_
#define _Out_writes_bytes_(size)
#define _Inout_updates_opt_(size)
#endif

typedef int32_t HRESULT;
typedef int32_t BOOL;
typedef uint8_t BOOLEAN;
typedef char CHAR;
typedef uint8_t BYTE;
typedef uint8_t UCHAR;
typedef uint16_t WORD;
typedef uint16_t USHORT;
typedef uint32_t DWORD;
typedef int32_t LONG; /* LONG and ULONG have 32 bits, also where long has 64 */
typedef uint32_t ULONG;
typedef int INT;
typedef unsigned int UINT;
typedef int32_t INT32;
typedef int64_t INT64;
typedef uint8_t UINT8;
typedef uint16_t UINT16;
typedef uint32_t UINT32;
typedef uint64_t UINT64;
typedef int64_t LONGLONG;
typedef uint64_t ULONGLONG;
typedef uint64_t ULONG64;
typedef uint64_t DWORD64;
typedef size_t SIZE_T;
typedef BYTE *PBYTE;
typedef UINT32 *PUINT32;
typedef UINT64 *PUINT64;
typedef DWORD *PDWORD;
typedef ULONG *PULONG;
typedef uintptr_t ULONG_PTR;
typedef uintptr_t DWORD_PTR;
typedef void *PVOID;
typedef void *LPVOID;
typedef void *HANDLE;
typedef void *HLOCAL;
typedef char *LPSTR;
typedef const char *LPCSTR;
typedef char *PSTR;
typedef const char *PCSTR;

#if defined(VMSAVEDSTATE_UTF16) || WCHAR_MAX <= 0xFFFF
#define VMSAVEDSTATE_WCHAR_BYTES 2
#if WCHAR_MAX <= 0xFFFF
typedef wchar_t WCHAR;
#elif defined(__cplusplus) && __cplusplus >= 201103L
typedef char16_t WCHAR;
#else
typedef uint_least16_t WCHAR;
#endif
#else
#define VMSAVEDSTATE_WCHAR_BYTES 4
typedef wchar_t WCHAR;
#endif

typedef WCHAR *LPWSTR;
typedef const WCHAR *LPCWSTR;
typedef const WCHAR *PCWSTR;
typedef WCHAR *PWSTR;

#ifndef TRUE
#define FALSE 0
#define TRUE 1
#endif

#define SUCCEEDED(hr) (((HRESULT)(hr)) >= 0)
#define FAILED(hr) (((HRESULT)(hr)) < 0)
#define HRESULT_FROM_WIN32(code) \
    ((HRESULT)(code) <= 0 ? (HRESULT)(code) : (HRESULT)(((uint32_t)(code) & 0xFFFFu) | 0x80070000u))

#define S_OK ((HRESULT)0)
#define S_FALSE ((HRESULT)1) /* returned by no function here */
#define E_NOTIMPL ((HRESULT)0x80004001)
#define E_POINTER ((HRESULT)0x80004003) /* the next two are returned by no function here, either */
#define E_HANDLE ((HRESULT)0x80070006)
#define E_FAIL ((HRESULT)0x80004005)
#define E_UNEXPECTED ((HRESULT)0x8000FFFF)
#define E_OUTOFMEMORY ((HRESULT)0x8007000E)
#define E_INVALIDARG ((HRESULT)0x80070057)

#define HRESULT_CODE(hr) ((hr)&0xFFFF)
#define ERROR_SUCCESS 0
#define ERROR_FILE_NOT_FOUND 2
#define ERROR_ACCESS_DENIED 5
#define ERROR_WRITE_FAULT 29
#define ERROR_READ_FAULT 30
#define ERROR_SHARING_VIOLATION 32
#define ERROR_NOT_SUPPORTED 50
#define ERROR_FILE_CORRUPT 1392

/* Frees a string that a function of this library returned. Takes NULL, returns NULL. */
EXTERN_C HLOCAL WINAPI LocalFree(HLOCAL memory);

#endif
