/* Start of a Cortex-M4 program on an emulated MPS2 board (AN386), with the emulator's semihosting for printf. */
#include <stdint.h>
#include <stdlib.h>

extern uint32_t stack_top, data_source, data_start, data_end, bss_start, bss_end;
int main(void);
void reset(void);
void initialise_monitor_handles(void);

static void stop(void) {
  for (;;) {
  }
}

void reset(void) {
  uint32_t *from = &data_source, *to;
  *(volatile uint32_t *)0xE000ED88 |= 0xFu << 20; /* CPACR: the floating-point unit */
  for (to = &data_start; to < &data_end;) *to++ = *from++;
  for (to = &bss_start; to < &bss_end;) *to++ = 0;
  initialise_monitor_handles();
  exit(main());
}

__attribute__((section(".vectors"), used)) static void (*const vectors[16])(void) = {
    (void (*)(void))&stack_top, reset, stop, stop, stop, stop, stop, 0, 0, 0, 0, stop, stop, 0, stop, stop};

void _fini(void) {} /* called at exit by the C library; nothing to do */
