/* F8: a page of ordinary memory in the same 1G. The BAR gets 2M leaves at most.
 * cc -o F8 F8.c; ./F8 GROUP 0000:BB:DD.F BAR */
#include "bar.h"

int main(int argc, char **argv)
{
	volatile char *bar;

	if (argc != 4)
		return 2;
	open_bar(argv);
	bar = map_bar(WINDOW, PUD, MAP_SHARED);
	char *page;

	munmap(WINDOW, PUD);
	page = mmap(WINDOW + PUD - PAGE, PAGE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0);
	page[0] = 1;
	bar = map_bar(WINDOW, PUD - PAGE, MAP_SHARED);
	bar[0] = 1;
	return 0;
}
