/* F5: reading smaps drops the leaf. thp_split_pud of /proc/vmstat grows by one.
 * cc -o F5 F5.c; ./F5 GROUP 0000:BB:DD.F BAR */
#include "bar.h"

int main(int argc, char **argv)
{
	volatile char *bar;

	if (argc != 4)
		return 2;
	open_bar(argv);
	bar = map_bar(WINDOW, PUD, MAP_SHARED);
	bar[0] = 1;
	system("cat /proc/$PPID/smaps > /dev/null; grep thp_split_pud /proc/vmstat");
	return 0;
}
