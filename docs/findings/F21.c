/* F21: a write after clear_refs 4 never completes. Ctrl-C ends it.
 * cc -o F21 F21.c; ./F21 GROUP 0000:BB:DD.F BAR */
#include "bar.h"

int main(int argc, char **argv)
{
	volatile char *bar;

	if (argc != 4)
		return 2;
	open_bar(argv);
	bar = map_bar(WINDOW, PUD, MAP_SHARED);
	clear_refs("4");
	(void)bar[0];
	bar[0] = 1;
	puts("the write completed");
	return 0;
}
