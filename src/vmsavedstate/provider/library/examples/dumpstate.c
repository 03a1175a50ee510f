/* Prints what is in a saved state: processors, registers, memory chunks. Compiles for both generations of the interface.
 *
 *     dumpstate guest.vmrs
 *     dumpstate guest.bin guest.vsv
 *
 * SPDX-License-Identifier: Apache-2.0
 */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "vmsavedstatedump.h"

static int failures;

/* Says which call failed, and goes on: a processor without a register has others. */
static int worked(HRESULT code, const char *what)
{
    if (code == S_OK)
        return 1;
    fprintf(stderr, "dumpstate: %s: 0x%08" PRIX32 "\n", what, (uint32_t)code);
    failures++;
    return 0;
}

static const char *architecture_name(VIRTUAL_PROCESSOR_ARCH architecture)
{
    static const char *const names[] = {"unknown", "x86", "x64", "armv8"};
    return (unsigned)architecture < 4 ? names[architecture] : "?";
}

static const char *paging_name(PAGING_MODE mode)
{
    static const char *const names[] = {"invalid", "not paged", "32 bit", "PAE", "long", "armv8"};
    return (unsigned)mode < 6 ? names[mode] : "?";
}

#if VMSAVEDSTATE_2021

enum shape { NUMBER, WIDE, SEGMENT, TABLE };

struct named {
    const char *name;
    int id;
    enum shape shape;
};

static const struct named x64_registers[] = {
    {"Rax", X64_RegisterRax, NUMBER},       {"Rcx", X64_RegisterRcx, NUMBER},       {"Rdx", X64_RegisterRdx, NUMBER},
    {"Rbx", X64_RegisterRbx, NUMBER},       {"Rsp", X64_RegisterRsp, NUMBER},       {"Rbp", X64_RegisterRbp, NUMBER},
    {"Rsi", X64_RegisterRsi, NUMBER},       {"Rdi", X64_RegisterRdi, NUMBER},       {"R8", X64_RegisterR8, NUMBER},
    {"R9", X64_RegisterR9, NUMBER},         {"R10", X64_RegisterR10, NUMBER},       {"R11", X64_RegisterR11, NUMBER},
    {"R12", X64_RegisterR12, NUMBER},       {"R13", X64_RegisterR13, NUMBER},       {"R14", X64_RegisterR14, NUMBER},
    {"R15", X64_RegisterR15, NUMBER},       {"Rip", X64_RegisterRip, NUMBER},       {"RFlags", X64_RegisterRFlags, NUMBER},
    {"Cr0", X64_RegisterCr0, NUMBER},       {"Cr2", X64_RegisterCr2, NUMBER},       {"Cr3", X64_RegisterCr3, NUMBER},
    {"Cr4", X64_RegisterCr4, NUMBER},       {"Cr8", X64_RegisterCr8, NUMBER},       {"Efer", X64_RegisterEfer, NUMBER},
    {"Dr0", X64_RegisterDr0, NUMBER},       {"Dr1", X64_RegisterDr1, NUMBER},       {"Dr2", X64_RegisterDr2, NUMBER},
    {"Dr3", X64_RegisterDr3, NUMBER},       {"Dr6", X64_RegisterDr6, NUMBER},       {"Dr7", X64_RegisterDr7, NUMBER},
    {"Es", X64_RegisterEs, SEGMENT},        {"Cs", X64_RegisterCs, SEGMENT},        {"Ss", X64_RegisterSs, SEGMENT},
    {"Ds", X64_RegisterDs, SEGMENT},        {"Fs", X64_RegisterFs, SEGMENT},        {"Gs", X64_RegisterGs, SEGMENT},
    {"Ldtr", X64_RegisterLdtr, SEGMENT},    {"Tr", X64_RegisterTr, SEGMENT},        {"Idtr", X64_RegisterIdtr, TABLE},
    {"Gdtr", X64_RegisterGdtr, TABLE},      {"Xmm0", X64_RegisterXmm0, WIDE},       {"Xmm1", X64_RegisterXmm1, WIDE},
    {"Xmm2", X64_RegisterXmm2, WIDE},       {"Xmm3", X64_RegisterXmm3, WIDE},       {"Xmm4", X64_RegisterXmm4, WIDE},
    {"Xmm5", X64_RegisterXmm5, WIDE},       {"Xmm6", X64_RegisterXmm6, WIDE},       {"Xmm7", X64_RegisterXmm7, WIDE},
    {"Xmm8", X64_RegisterXmm8, WIDE},       {"Xmm9", X64_RegisterXmm9, WIDE},       {"Xmm10", X64_RegisterXmm10, WIDE},
    {"Xmm11", X64_RegisterXmm11, WIDE},     {"Xmm12", X64_RegisterXmm12, WIDE},     {"Xmm13", X64_RegisterXmm13, WIDE},
    {"Xmm14", X64_RegisterXmm14, WIDE},     {"Xmm15", X64_RegisterXmm15, WIDE},     {"FpMmx0", X64_RegisterFpMmx0, WIDE},
    {"FpMmx1", X64_RegisterFpMmx1, WIDE},   {"FpMmx2", X64_RegisterFpMmx2, WIDE},   {"FpMmx3", X64_RegisterFpMmx3, WIDE},
    {"FpMmx4", X64_RegisterFpMmx4, WIDE},   {"FpMmx5", X64_RegisterFpMmx5, WIDE},   {"FpMmx6", X64_RegisterFpMmx6, WIDE},
    {"FpMmx7", X64_RegisterFpMmx7, WIDE},   {"FpState", X64_RegisterFpControlStatus, WIDE},
    {"XmmState", X64_RegisterXmmControlStatus, WIDE}, {NULL, 0, NUMBER},
};

static const struct named arm64_registers[] = {
    {"Pc", ARM64_RegisterPc, NUMBER},
    {"Cpsr", ARM64_RegisterCpsr, NUMBER},
    {"Fp", ARM64_RegisterXFp, NUMBER},
    {"Lr", ARM64_RegisterXLr, NUMBER},
    {"SpEl0", ARM64_RegisterSpEl0, NUMBER},
    {"SpEl1", ARM64_RegisterSpEl1, NUMBER},
    {"Ttbr0El1", ARM64_RegisterTtbr0El1, NUMBER},
    {"Ttbr1El1", ARM64_RegisterTtbr1El1, NUMBER},
    {"SctlrEl1", ARM64_RegisterSctlrEl1, NUMBER},
    {"TcrEl1", ARM64_RegisterTcrEl1, NUMBER},
    {NULL, 0, NUMBER},
};

static void print_register(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vp, const char *name, int id, enum shape shape)
{
    VIRTUAL_PROCESSOR_REGISTER value;
    if (!worked(GetRegisterValue(handle, vp, (DWORD)id, &value), name))
        return;
    printf("  %-8s ", name);
    if (shape == NUMBER)
        printf("0x%" PRIx64 "\n", value.Reg64);
    else if (shape == WIDE)
        printf("0x%016" PRIx64 "%016" PRIx64 "\n", value.Reg128.High64, value.Reg128.Low64);
    else if (shape == SEGMENT)
        printf("0x%x base 0x%" PRIx64 " limit 0x%" PRIx32 " attributes 0x%x\n", value.X64.Segment.Selector,
               value.X64.Segment.Base, value.X64.Segment.Limit, value.X64.Segment.Attributes);
    else
        printf("base 0x%" PRIx64 " limit 0x%x\n", value.X64.Table.Base, value.X64.Table.Limit);
}

static void print_registers(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vp, VIRTUAL_PROCESSOR_ARCH architecture)
{
    char name[8];
    const struct named *item = architecture == Arch_Armv8 ? arm64_registers : x64_registers;
    for (; item->name != NULL; item++)
        print_register(handle, vp, item->name, item->id, item->shape);
    for (int n = 0; architecture == Arch_Armv8 && n < 29; n++) {
        snprintf(name, sizeof name, "X%d", n);
        print_register(handle, vp, name, ARM64_RegisterX0 + n, NUMBER);
    }
}

static void print_more(VM_SAVED_STATE_DUMP_HANDLE handle)
{
    UINT32 levels;
    GUEST_OS_INFO system;
    if (worked(GetGuestEnabledVirtualTrustLevels(handle, &levels), "GetGuestEnabledVirtualTrustLevels"))
        printf("Virtual trust levels 0x%" PRIx32 "\n", levels);
    if (worked(GetGuestOsInfo(handle, 0, &system), "GetGuestOsInfo"))
        printf("Guest OS id 0x%" PRIx64 "\n", system.AsUINT64);
}

#else

static const char *const x64_names[X64_RegisterCount] = {
    "Rax", "Rcx", "Rdx", "Rbx", "Rsp", "Rbp", "Rsi", "Rdi", "R8", "R9", "R10", "R11", "R12", "R13", "R14", "R15",
    "Rip", "RFlags",
    [X64_RegisterCr0] = "Cr0", "Cr2", "Cr3", "Cr4", "Cr8", "Efer", "Dr0", "Dr1", "Dr2", "Dr3", "Dr6", "Dr7", "GsBase",
    "FsBase", "Cs", "Ds", "Es", "Fs", "Gs", "Ss", "Tr", "Ldtr", "IdtrBase", "IdtrLimit", "GdtrBase", "GdtrLimit",
};

/* The numbers of the x64 table serve for every x86 processor: the state holds the same registers. */
static void print_registers(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vp, VIRTUAL_PROCESSOR_ARCH architecture)
{
    (void)architecture;
    for (DWORD id = 0; id < X64_RegisterCount; id++) {
        VIRTUAL_PROCESSOR_REGISTER value = {.Architecture = Arch_x64};
        value.RegisterId = id; /* forgetting this prints one register under every name */
        char number[16];
        const char *name = x64_names[id];
        if (name == NULL) {
            snprintf(number, sizeof number, "#%u", (unsigned)id);
            name = number;
        }
        if (worked(GetRegisterValue(handle, vp, &value), name))
            printf("  %-9s 0x%" PRIx64 "\n", name, value.RegisterValue);
    }
}

static void print_more(VM_SAVED_STATE_DUMP_HANDLE handle)
{
    (void)handle;
}

#endif

static void print_processor(VM_SAVED_STATE_DUMP_HANDLE handle, UINT32 vp)
{
    VIRTUAL_PROCESSOR_ARCH architecture = Arch_Unknown;
    PAGING_MODE mode = Paging_Invalid;
    BOOL kernel = FALSE;
    if (!worked(GetArchitecture(handle, vp, &architecture), "GetArchitecture"))
        return;
    worked(GetPagingMode(handle, vp, &mode), "GetPagingMode");
    worked(InKernelSpace(handle, vp, &kernel), "InKernelSpace");
    printf("VP %" PRIu32 ": %s, paging %s, in %s space\n", vp, architecture_name(architecture), paging_name(mode),
           kernel ? "kernel" : "user");
    print_registers(handle, vp, architecture);
}

static void print_chunks(VM_SAVED_STATE_DUMP_HANDLE handle)
{
    UINT64 page_size = 0, count = 0, raw_size = 0;
    /* Without an array the call fails and gives their number. */
    HRESULT code = GetGuestPhysicalMemoryChunks(handle, &page_size, NULL, &count);
    GPA_MEMORY_CHUNK *chunks = code == E_OUTOFMEMORY ? calloc((size_t)count, sizeof *chunks) : NULL;
    if (chunks == NULL) {
        worked(code, "GetGuestPhysicalMemoryChunks");
        return;
    }
    if (worked(GetGuestPhysicalMemoryChunks(handle, &page_size, chunks, &count), "GetGuestPhysicalMemoryChunks"))
        for (UINT64 n = 0; n < count; n++)
            printf("Memory 0x%" PRIx64 ", %" PRIu64 " pages of %" PRIu64 "\n",
                   chunks[n].GuestPhysicalStartPageIndex * page_size, chunks[n].PageCount, page_size);
    free(chunks);
    if (worked(GetGuestRawSavedMemorySize(handle, &raw_size), "GetGuestRawSavedMemorySize"))
        printf("Raw size %" PRIu64 "\n", raw_size);
}

int main(int argc, char **argv)
{
    VM_SAVED_STATE_DUMP_HANDLE handle = NULL;
    UINT32 count = 0;
    if (argc != 2 && argc != 3) {
        fprintf(stderr, "usage: %s VMRS | BIN VSV\n", argv[0]);
        return 2;
    }
    HRESULT code = argc == 2 ? LoadSavedStateFileU8(argv[1], &handle) : LoadSavedStateFilesU8(argv[1], argv[2], &handle);
    if (!worked(code, argv[1])) {
        fprintf(stderr, "dumpstate: set VMSAVEDSTATE_LOG=- to see why\n");
        return 1;
    }
    if (worked(GetVpCount(handle, &count), "GetVpCount"))
        for (UINT32 vp = 0; vp < count; vp++)
            print_processor(handle, vp);
    print_chunks(handle);
    print_more(handle);
    worked(ReleaseSavedStateFiles(handle), "ReleaseSavedStateFiles");
    return failures != 0;
}
