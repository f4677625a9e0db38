/* F25: a MAP_FIXED that fails has removed the mapping. The last access is a SIGSEGV.
 * cc -o F25 F25.c; ./F25 GROUP 0000:BB:DD.F BAR */
#include "bar.h"

int main(int argc, char **argv)
{
	volatile char *bar;

	if (argc != 4)
		return 2;
	open_bar(argv);
	bar = map_bar(WINDOW, PUD, MAP_SHARED);
	bar[0] = 1;
	if (map_bar(WINDOW, PUD, MAP_PRIVATE) == MAP_FAILED)
		perror("mmap");
	bar[0] = 1;
	return 0;
}
