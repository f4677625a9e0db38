/* F23: anonymous memory in the hole of a leaked leaf is the BAR. Prints what is in it before it was written.
 * cc -o F23 F23.c; ./F23 GROUP 0000:BB:DD.F BAR */
#include "bar.h"

int main(int argc, char **argv)
{
	volatile char *bar;

	if (argc != 4)
		return 2;
	open_bar(argv);
	bar = map_bar(WINDOW, PUD, MAP_SHARED);
	bar[0] = 1;
	bar[PMD] = 42;
	madvise(WINDOW + PMD, PMD, MADV_DONTFORK);
	if (!fork()) {
		char *ram = mmap(WINDOW + PMD, PMD, PROT_READ | PROT_WRITE,
				 MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);

		printf("new memory holds %d\n", ram[0]);
		_exit(0);
	}
	wait(NULL);
	return 0;
}
