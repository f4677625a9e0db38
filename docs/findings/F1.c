/* F1: mprotect of a page in a live 1G leaf. The kernel oopses.
 * cc -o F1 F1.c; ./F1 GROUP 0000:BB:DD.F BAR */
#include "bar.h"

int main(int argc, char **argv)
{
	volatile char *bar;

	if (argc != 4)
		return 2;
	open_bar(argv);
	bar = map_bar(WINDOW, PUD, MAP_SHARED);
	bar[0] = 1;
	mprotect(WINDOW, PAGE, PROT_READ);
	return 0;
}
