/* The part that all reproducers have: a BAR of a device that is bound to vfio-pci. Exits where something is missing. */
#define _GNU_SOURCE
#include <err.h>
#include <fcntl.h>
#include <linux/vfio.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#define WINDOW ((char *)0x100000000000UL)
#define PAGE 4096UL
#define PMD (1UL << 21)
#define PUD (1UL << 30)

static int bar_device;
static off_t bar_offset;

/* argv: group number, PCI address, BAR index. */
static inline void open_bar(char **argv)
{
	struct vfio_region_info region = { .argsz = sizeof(region) };
	char path[64];
	int container = open("/dev/vfio/vfio", O_RDWR), group;

	snprintf(path, sizeof(path), "/dev/vfio/%s", argv[1]);
	group = open(path, O_RDWR);
	if (container < 0 || group < 0 || ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) ||
	    ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU))
		err(1, "%s", path);
	bar_device = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, argv[2]);
	region.index = atoi(argv[3]);
	if (bar_device < 0 || ioctl(bar_device, VFIO_DEVICE_GET_REGION_INFO, &region))
		err(1, "%s", argv[2]);
	bar_offset = region.offset;
}

/* A mapping of the BAR from its beginning; the BAR's address is a multiple of 1G, and so is `at`. */
static inline char *map_bar(char *at, size_t length, int flags)
{
	return mmap(at, length, PROT_READ | PROT_WRITE, flags | MAP_FIXED, bar_device, bar_offset);
}

static inline void clear_refs(const char *what)
{
	int fd = open("/proc/self/clear_refs", O_WRONLY);

	if (fd < 0 || write(fd, what, strlen(what)) < 0)
		err(1, "clear_refs");
	close(fd);
}
