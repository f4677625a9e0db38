/* F3: a child without a mapping reads the BAR. Prints that it lives.
 * cc -o F3 F3.c; ./F3 GROUP 0000:BB:DD.F BAR */
#include "bar.h"

int main(int argc, char **argv)
{
	volatile char *bar;

	if (argc != 4)
		return 2;
	open_bar(argv);
	bar = map_bar(WINDOW, PUD, MAP_SHARED);
	bar[0] = 1;
	madvise(WINDOW + PMD, PMD, MADV_DONTFORK);
	if (!fork()) {
		bar[PMD] = 2;
		puts("the child wrote to the BAR");
		_exit(0);
	}
	wait(NULL);
	return 0;
}
