/* F22: read(2) into the BAR after clear_refs 4 never returns, and cannot be killed. Decode off ends it.
 * cc -o F22 F22.c; ./F22 GROUP 0000:BB:DD.F BAR */
#include "bar.h"

int main(int argc, char **argv)
{
	volatile char *bar;

	if (argc != 4)
		return 2;
	open_bar(argv);
	bar = map_bar(WINDOW, PUD, MAP_SHARED);
	int fds[2];

	clear_refs("4");
	if (pipe(fds) || write(fds[1], "0123456789abcdef", 16) != 16)
		err(1, "pipe");
	(void)bar[0];
	if (read(fds[0], WINDOW, 16) == 16)
		puts("the read returned");
	return 0;
}
