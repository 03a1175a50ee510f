/* The kernel of the sample guest: says what it is on the screen, starts the second processor, and waits to be frozen.
 *
 * Processor 0 stops in the kernel with known values in its registers. Processor 1 goes to user mode and counts there.
 */
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long u64;

#define WIDTH 640
#define HEIGHT 400
#define FRAME_BUFFER ((volatile u16 *)0xe0000000)
#define LOCAL_APIC ((volatile u32 *)0xfee00000)
#define USER_CODE 0x400000UL
#define USER_STACK_TOP 0x402000UL
#define USER_CODE_PHYSICAL 0x140000UL
#define KERNEL_BASE 0xffffffff80000000UL

extern u8 user_program[], user_program_end[];
void user_mode(u64 ip, u64 sp);
void stop(void);

const char banner[] = "VMSAVEDSTATE SAMPLE GUEST";
volatile u64 shared_counter;
volatile u32 processors_up;

/* 5 x 7 dots per character, one byte per row, the leftmost dot in bit 4. */
static const struct { char name; u8 rows[7]; } font[] = {
    {'A', {14, 17, 17, 31, 17, 17, 17}}, {'B', {30, 17, 17, 30, 17, 17, 30}}, {'C', {14, 17, 16, 16, 16, 17, 14}},
    {'D', {30, 17, 17, 17, 17, 17, 30}}, {'E', {31, 16, 16, 30, 16, 16, 31}}, {'F', {31, 16, 16, 30, 16, 16, 16}},
    {'G', {14, 17, 16, 23, 17, 17, 15}}, {'H', {17, 17, 17, 31, 17, 17, 17}}, {'I', {14, 4, 4, 4, 4, 4, 14}},
    {'K', {17, 18, 20, 24, 20, 18, 17}}, {'L', {16, 16, 16, 16, 16, 16, 31}}, {'M', {17, 27, 21, 21, 17, 17, 17}}, {'N', {17, 25, 21, 19, 17, 17, 17}},
    {'O', {14, 17, 17, 17, 17, 17, 14}}, {'P', {30, 17, 17, 30, 16, 16, 16}}, {'R', {30, 17, 17, 30, 20, 18, 17}},
    {'S', {15, 16, 16, 14, 1, 1, 30}}, {'T', {31, 4, 4, 4, 4, 4, 4}}, {'U', {17, 17, 17, 17, 17, 17, 14}},
    {'V', {17, 17, 17, 17, 17, 10, 4}}, {'W', {17, 17, 17, 21, 21, 27, 17}}, {'Y', {17, 17, 10, 4, 4, 4, 4}},
    {'0', {14, 17, 19, 21, 25, 17, 14}}, {'1', {4, 12, 4, 4, 4, 4, 14}}, {'2', {14, 17, 1, 6, 8, 16, 31}},
    {'3', {30, 1, 1, 14, 1, 1, 30}}, {'4', {2, 6, 10, 18, 31, 2, 2}}, {'6', {14, 16, 16, 30, 17, 17, 14}},
    {':', {0, 4, 0, 0, 0, 4, 0}}, {'.', {0, 0, 0, 0, 0, 0, 4}}, {'-', {0, 0, 0, 14, 0, 0, 0}},
};

static void out16(u16 port, u16 value) { __asm__ volatile("outw %0, %1" ::"a"(value), "Nd"(port)); }
static void out32(u16 port, u32 value) { __asm__ volatile("outl %0, %1" ::"a"(value), "Nd"(port)); }

/* The attribute controller keeps the display dark until bit 5 of its index is set; reading 0x3da resets the index. */
static void light_up(void)
{
    u8 status;
    __asm__ volatile("inb %1, %0" : "=a"(status) : "Nd"((u16)0x3da));
    __asm__ volatile("outb %0, %1" ::"a"((u8)0x20), "Nd"((u16)0x3c0));
}

static u32 in32(u16 port)
{
    u32 value;
    __asm__ volatile("inl %1, %0" : "=a"(value) : "Nd"(port));
    return value;
}

static u32 pci(u32 device, u32 offset)
{
    out32(0xcf8, 0x80000000 | device << 11 | offset);
    return in32(0xcfc);
}

static void pci_write(u32 device, u32 offset, u32 value)
{
    out32(0xcf8, 0x80000000 | device << 11 | offset);
    out32(0xcfc, value);
}

/* Find the display, give its memory an address, and switch it to 16 bits per pixel. */
static int screen_on(void)
{
    static const u16 mode[][2] = {{4, 0}, {1, WIDTH}, {2, HEIGHT}, {3, 16}, {4, 0x41}};
    for (u32 device = 0; device < 32; device++)
        if (pci(device, 0) != 0xffffffff && pci(device, 8) >> 16 == 0x0300) {
            pci_write(device, 0x10, 0xe0000000);
            pci_write(device, 4, pci(device, 4) | 3);
            for (u32 i = 0; i < sizeof mode / sizeof mode[0]; i++) {
                out16(0x1ce, mode[i][0]);
                out16(0x1cf, mode[i][1]);
            }
            light_up();
            return 1;
        }
    return 0;
}

static void fill(u32 left, u32 top, u32 width, u32 height, u16 colour)
{
    for (u32 y = top; y < top + height; y++)
        for (u32 x = left; x < left + width; x++)
            FRAME_BUFFER[y * WIDTH + x] = colour;
}

static void write(u32 x, u32 y, u32 scale, u16 colour, const char *text)
{
    for (; *text; text++, x += 6 * scale)
        for (u32 glyph = 0; glyph < sizeof font / sizeof font[0]; glyph++)
            if (font[glyph].name == *text)
                for (u32 row = 0; row < 7; row++)
                    for (u32 column = 0; column < 5; column++)
                        if (font[glyph].rows[row] >> (4 - column) & 1)
                            fill(x + column * scale, y + row * scale, scale, scale, colour);
}

static void show(void)
{
    static const u16 bars[] = {0xf800, 0xfd20, 0xffe0, 0x07e0, 0x07ff, 0x001f, 0xf81f};
    fill(0, 0, WIDTH, HEIGHT, 0x0841);
    write(20, 60, 4, 0xffff, banner);
    write(20, 130, 3, 0x07e0, "LONG MODE  4 LEVELS  2 VPS");
    write(20, 180, 2, 0xbdf7, "VP 0: STOPPED IN THE KERNEL");
    write(20, 210, 2, 0xbdf7, "VP 1: COUNTING IN USER MODE");
    for (u32 bar = 0; bar < 7; bar++)
        fill(20 + bar * 86, 280, 80, 60, bars[bar]);
}

static void start_second(void)
{
    LOCAL_APIC[0xf0 / 4] = 0x1ff;
    LOCAL_APIC[0x310 / 4] = 1 << 24;
    LOCAL_APIC[0x300 / 4] = 0x4500; /* INIT */
    for (volatile u32 wait = 0; wait < 1000000; wait++)
        ;
    LOCAL_APIC[0x310 / 4] = 1 << 24;
    LOCAL_APIC[0x300 / 4] = 0x46f0; /* start at F000:0000 */
    while (processors_up < 2)
        ;
}

void kernel(u32 processor)
{
    if (processor) {
        u8 *code = (u8 *)(KERNEL_BASE + USER_CODE_PHYSICAL);
        for (u64 i = 0; i < (u64)(user_program_end - user_program); i++)
            code[i] = user_program[i];
        processors_up++;
        user_mode(USER_CODE, USER_STACK_TOP);
    }
    processors_up = 1;
    start_second();
    if (screen_on())
        show();
    stop();
}
