/* The structures of a made-up kernel: the members that are read of a real one, by their names, and none else. */
typedef unsigned long u64;
struct list_head { struct list_head *next, *prev; };
struct maple_tree { unsigned flags; void *ma_root; };
struct maple_metadata { unsigned char end, gap; };
struct maple_range_64 {
	void *parent;
	u64 pivot[15];
	union { void *slot[16]; struct { void *pad[15]; struct maple_metadata meta; }; };
};
struct maple_arange_64 {
	void *parent;
	u64 pivot[9];
	void *slot[10];
	u64 gap[10];
	struct maple_metadata meta;
};
struct maple_node { union { struct maple_range_64 mr64; struct maple_arange_64 ma64; }; };
struct mm_struct { struct maple_tree mm_mt; u64 *pgd; };
struct task_struct { int pid, tgid; char comm[16]; struct list_head tasks; struct mm_struct *mm; };
struct kobject { const char *name; };
struct device { struct kobject kobj; };
struct resource { u64 start, end; const char *name; struct resource *sibling, *child; };
struct pci_dev { unsigned devfn; struct device dev; struct resource resource[6]; };
struct vfio_device { struct device *dev; };
struct vfio_device_file { struct vfio_device *device; };
struct qstr { unsigned len; const char *name; };
struct dentry { struct qstr d_name; };
struct path { struct dentry *dentry; };
struct file { struct path f_path; void *private_data; };
struct vm_area_struct { u64 vm_start, vm_end, vm_pgoff; struct file *vm_file; };
enum transparent_hugepage_flag {
	TRANSPARENT_HUGEPAGE_UNSUPPORTED, TRANSPARENT_HUGEPAGE_FLAG, TRANSPARENT_HUGEPAGE_REQ_MADV_FLAG
};
struct task_struct init_task;
struct mm_struct init_mm;
struct resource iomem_resource;
struct maple_node node;
struct vm_area_struct vma;
struct pci_dev pci;
struct vfio_device_file vfio_file;
enum transparent_hugepage_flag flag;
