// SPDX-License-Identifier: Apache-2.0
/*
 * The devices: bound to vfio-pci, all in one type1v2 container that stays open; where the kernel has no container, each
 * opened by its own character device and attached to one IOAS of iommufd.
 */
#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <glob.h>
#include <linux/iommufd.h>
#include <linux/vfio.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "guest.h"

#define PCI_COMMAND 4
#define PCI_COMMAND_MEMORY 2
#define MAX_DEVICES 16
#define BARS 6

static struct device {
	char name[32];
	int fd;
	unsigned long long config, bar[BARS];
} devices[MAX_DEVICES];
static int n_devices, container = -1, iommufd = -1;
static unsigned int ioas;

static struct device *named(const char *name)
{
	for (int i = 0; i < n_devices; i++)
		if (!strcmp(devices[i].name, name))
			return &devices[i];
	return NULL;
}

/* Says where it failed and why. */
static void failed(const char *where)
{
	say_errno(-1);
	say("where %s", where);
}

static int bind_device(const char *bdf)
{
	char path[128];
	snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/driver_override", bdf);
	if (write_file(path, "vfio-pci"))
		return -1;
	if (write_file("/sys/bus/pci/drivers_probe", bdf))
		return -1;
	snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/driver", bdf);
	return access(path, F_OK);
}

static int open_group(const char *bdf)
{
	char path[128], link[256], group_path[64];
	snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/iommu_group", bdf);
	ssize_t length = readlink(path, link, sizeof link - 1);
	if (length < 0)
		return -1;
	link[length] = 0;
	snprintf(group_path, sizeof group_path, "/dev/vfio/%.16s", strrchr(link, '/') + 1);
	return open(group_path, O_RDWR | O_CLOEXEC);
}

/* "region INDEX SIZE FLAGS PHYS" a BAR; each mmapable one is mapped once, so that it is requested (once, by 6.12). */
static void say_regions(struct device *device, const char *bdf)
{
	char path[128];
	snprintf(path, sizeof path, "/sys/bus/pci/devices/%s/resource", bdf);
	FILE *file = fopen(path, "re");
	for (unsigned int i = 0; i < BARS; i++) {
		struct vfio_region_info info = { .argsz = sizeof info, .index = i };
		unsigned long long start = 0;
		char line[128];
		if (file && fgets(line, sizeof line, file))
			start = strtoull(line, NULL, 0);
		if (ioctl(device->fd, VFIO_DEVICE_GET_REGION_INFO, &info) || !info.size)
			continue;
		device->bar[i] = info.offset;
		say("region %u 0x%llx 0x%x 0x%llx", i, (unsigned long long)info.size, info.flags, start);
		if (info.flags & VFIO_REGION_INFO_FLAG_MMAP) {
			void *mapped = mmap(NULL, 4096, PROT_READ, MAP_SHARED, device->fd, info.offset);
			if (mapped != MAP_FAILED)
				munmap(mapped, 4096);
		}
	}
	if (file)
		fclose(file);
}

/* Returns a device's fd, or -1 after it said what failed. */
static int open_in_container(const char *bdf)
{
	int group = open_group(bdf), fd = -1;
	if (group < 0)
		failed("group");
	else if (ioctl(group, VFIO_GROUP_SET_CONTAINER, &container) ||
		 (!n_devices && ioctl(container, VFIO_SET_IOMMU, VFIO_TYPE1v2_IOMMU)))
		failed("type1");
	else if ((fd = ioctl(group, VFIO_GROUP_GET_DEVICE_FD, bdf)) < 0)
		failed("device");
	return fd;
}

static int open_cdev(const char *bdf)
{
	char pattern[128], path[64];
	glob_t found;
	snprintf(pattern, sizeof pattern, "/sys/bus/pci/devices/%s/vfio-dev/vfio*", bdf);
	if (glob(pattern, 0, NULL, &found)) {
		errno = ENOENT;
		return -1;
	}
	snprintf(path, sizeof path, "/dev/vfio/devices/%.32s", strrchr(found.gl_pathv[0], '/') + 1);
	globfree(&found);
	return open(path, O_RDWR | O_CLOEXEC);
}

static int open_in_ioas(const char *bdf)
{
	int fd = open_cdev(bdf);
	struct vfio_device_bind_iommufd bind = { .argsz = sizeof bind, .iommufd = iommufd };
	struct iommu_ioas_alloc alloc = { .size = sizeof alloc };
	struct vfio_device_attach_iommufd_pt attach = { .argsz = sizeof attach };
	if (fd < 0) {
		failed("cdev");
		return -1;
	}
	if (!ioas && !ioctl(iommufd, IOMMU_IOAS_ALLOC, &alloc))
		ioas = alloc.out_ioas_id;
	attach.pt_id = ioas;
	if (!ioas || ioctl(fd, VFIO_DEVICE_BIND_IOMMUFD, &bind) || ioctl(fd, VFIO_DEVICE_ATTACH_IOMMUFD_PT, &attach)) {
		failed("iommufd");
		return -1;
	}
	return fd;
}

void do_vfio(void)
{
	char bdf[16];
	snprintf(bdf, sizeof bdf, "%s", text_of("bdf"));
	if (n_devices == MAX_DEVICES) {
		errno = ENOSPC;
		failed("devices");
		return;
	}
	if (bind_device(bdf)) {
		failed("bind");
		return;
	}
	if (container < 0 && iommufd < 0 && (container = open("/dev/vfio/vfio", O_RDWR | O_CLOEXEC)) < 0 &&
	    (iommufd = open("/dev/iommu", O_RDWR | O_CLOEXEC)) < 0) {
		failed("container");
		return;
	}
	int fd = container < 0 ? open_in_ioas(bdf) : open_in_container(bdf);
	if (fd < 0)
		return;
	struct device *device = &devices[n_devices];
	struct vfio_region_info config = { .argsz = sizeof config, .index = VFIO_PCI_CONFIG_REGION_INDEX };
	device->fd = fd;
	if (ioctl(device->fd, VFIO_DEVICE_GET_REGION_INFO, &config)) {
		failed("device");
		return;
	}
	device->config = config.offset;
	snprintf(device->name, sizeof device->name, "%s", text_of("name"));
	n_devices++;
	say_regions(device, bdf);
	say("backend %s", container < 0 ? "iommufd" : "type1");
	say("result ok");
}

void do_mmap(void)
{
	int prot = 0, flags = 0, fd = -1;
	unsigned long long offset = 0;
	for (const char *c = text_of("prot"); *c; c++)
		prot |= *c == 'r' ? PROT_READ : *c == 'w' ? PROT_WRITE : *c == 'x' ? PROT_EXEC : 0;
	if (!strcmp(text_of("prot"), "none"))
		prot = PROT_NONE;
	flags |= !strcmp(text_of("shared"), "true") ? MAP_SHARED : MAP_PRIVATE;
	flags |= !strcmp(text_of("fixed"), "true") ? MAP_FIXED : 0;
	flags |= !strcmp(text_of("populate"), "true") ? MAP_POPULATE : 0;
	flags |= !strcmp(text_of("locked"), "true") ? MAP_LOCKED : 0;
	flags |= !strcmp(text_of("noreserve"), "true") ? MAP_NORESERVE : 0;
	struct device *device = named(text_of("device"));
	if (device) {
		offset = device->bar[number_of("bar") % BARS] + number_of("offset");
		fd = !strcmp(text_of("fd"), "dup_closed") ? dup(device->fd) : device->fd;
	} else {
		flags |= MAP_ANONYMOUS;
	}
	unsigned long long addr = number_of("addr"), length = number_of("length");
	if (flags & MAP_FIXED)
		watch_range(addr, length); /* already what mmap itself faults in */
	void *mapped = mmap((void *)(uintptr_t)addr, length, prot, flags, fd, offset);
	int error = errno;
	if (device && fd != device->fd)
		close(fd);
	errno = error;
	say_errno(mapped == MAP_FAILED ? -1 : 0);
	if (mapped == MAP_FAILED)
		return;
	say("addr 0x%llx", (unsigned long long)(uintptr_t)mapped);
	if (device)
		watch_range((uintptr_t)mapped, length);
}

void do_pci_memory(void)
{
	struct device *device = named(text_of("device"));
	unsigned short command;
	if (!device || pread(device->fd, &command, 2, device->config + PCI_COMMAND) != 2) {
		say_errno(-1);
		return;
	}
	if (!strcmp(text_of("enabled"), "true"))
		command |= PCI_COMMAND_MEMORY;
	else
		command &= ~PCI_COMMAND_MEMORY;
	ssize_t wrote = pwrite(device->fd, &command, 2, device->config + PCI_COMMAND);
	say_errno(wrote == 2 ? 0 : -1);
	if (pread(device->fd, &command, 2, device->config + PCI_COMMAND) == 2)
		say("command 0x%x", command);
}

void do_device_reset(void)
{
	struct device *device = named(text_of("device"));
	say_errno(device ? ioctl(device->fd, VFIO_DEVICE_RESET) : -1);
}

void do_dma_map(void)
{
	struct vfio_iommu_type1_dma_map map = { .argsz = sizeof map };
	for (const char *c = text_of("prot"); *c; c++)
		map.flags |= *c == 'r' ? VFIO_DMA_MAP_FLAG_READ : *c == 'w' ? VFIO_DMA_MAP_FLAG_WRITE : 0;
	map.vaddr = number_of("va");
	map.iova = number_of("iova");
	map.size = number_of("length");
	say_errno(ioctl(container, VFIO_IOMMU_MAP_DMA, &map));
}

void do_dma_unmap(void)
{
	struct vfio_iommu_type1_dma_unmap unmap = { .argsz = sizeof unmap };
	unmap.iova = number_of("iova");
	unmap.size = number_of("length");
	say_errno(ioctl(container, VFIO_IOMMU_UNMAP_DMA, &unmap));
	say("bytes %llu", (unsigned long long)unmap.size);
}

void do_iommufd_map(void)
{
	struct iommu_ioas_map map = { .size = sizeof map, .flags = IOMMU_IOAS_MAP_FIXED_IOVA, .ioas_id = ioas };
	for (const char *c = text_of("prot"); *c; c++)
		map.flags |= *c == 'r' ? IOMMU_IOAS_MAP_READABLE : *c == 'w' ? IOMMU_IOAS_MAP_WRITEABLE : 0;
	map.user_va = number_of("va");
	map.iova = number_of("iova");
	map.length = number_of("length");
	say_errno(ioctl(iommufd, IOMMU_IOAS_MAP, &map));
}

void do_iommufd_unmap(void)
{
	struct iommu_ioas_unmap unmap = { .size = sizeof unmap, .ioas_id = ioas };
	unmap.iova = number_of("iova");
	unmap.length = number_of("length");
	say_errno(ioctl(iommufd, IOMMU_IOAS_UNMAP, &unmap));
	say("bytes %llu", (unsigned long long)unmap.length);
}
