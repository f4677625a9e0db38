/* F2: mremap of a 1G leaf. "bad pud" in the log.
 * cc -o F2 F2.c; ./F2 GROUP 0000:BB:DD.F BAR */
#include "bar.h"

int main(int argc, char **argv)
{
	volatile char *bar;

	if (argc != 4)
		return 2;
	open_bar(argv);
	bar = map_bar(WINDOW, PUD, MAP_SHARED);
	bar[0] = 1;
	mremap(WINDOW, PUD, PUD, MREMAP_MAYMOVE | MREMAP_FIXED, WINDOW + 8 * PUD);
	return 0;
}
