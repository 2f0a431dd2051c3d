package unix

import (
	"errors"
	"io/fs"
	"path/filepath"
	"regexp"
	"slices"

	discoveryv1 "a3os.app/proto/gen/go/a3os/discovery/v1"
)

// daemon is a program that runs as root and does what anyone tells it who may write its socket.
type daemon struct {
	name    string
	sockets []string
	// groups are who may write the socket where it is made in the usual way.
	groups []string
	power  string
}

// daemons are those whose own documentation says that their socket is as good as root.
var daemons = []daemon{
	{"docker", []string{"/run/docker.sock", "/var/run/docker.sock"}, []string{"docker"}, "starts containers that hold the whole machine"},
	{"podman", []string{"/run/podman/podman.sock"}, nil, "starts containers that hold the whole machine"},
	{"containerd", []string{"/run/containerd/containerd.sock"}, nil, "starts containers that hold the whole machine"},
	{"lxd", []string{"/var/lib/lxd/unix.socket", "/var/snap/lxd/common/lxd/unix.socket"}, []string{"lxd"}, "starts containers that hold the whole machine"},
	{"incus", []string{"/var/lib/incus/unix.socket"}, []string{"incus-admin"}, "starts containers that hold the whole machine"},
}

// disks are devices that hold file systems.
var disks = regexp.MustCompile(`^(sd|hd|vd|xvd|nvme|mmcblk|dm-|md)`)

// addDoors adds what groups can do because of who may write a socket or a disk: their members come by root as surely as by sudo. What
// isn't running now, and would be such a door when it runs, is a gap.
func (g *graph) addDoors(m *machine) {
	for _, d := range daemons {
		found := false
		for _, socket := range d.sockets {
			found = g.addDoor(m, socket, fs.ModeSocket, d.name+", which runs as root and "+d.power+", listens at "+socket) || found
		}
		for _, one := range m.groups {
			if !found && slices.Contains(d.groups, one.name) && m.hasMembers(one) {
				g.gap(ScopeGroups, "the group "+one.name+" has members, who come by root when "+d.name+" runs: its socket was not found")
			}
		}
	}
	devices, err := m.readDir("/dev")
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		g.gap(ScopeGroups, "/dev: "+reasonOf(err))
	}
	for _, dev := range devices {
		if disks.MatchString(dev) {
			g.addDoor(m, "/dev/"+dev, fs.ModeDevice, "files can be changed on the disk /dev/"+dev+" itself")
		}
	}
}

// addDoor lets whoever may write a file of root's become root, and says whether the file is there.
func (g *graph) addDoor(m *machine, name string, kind fs.FileMode, reason string) bool {
	info, err := m.stat(name)
	if notThere(err) {
		return false
	}
	if err != nil {
		g.gap(ScopeGroups, name+": "+reasonOf(err))
		return true // it is not known to be away
	}
	if info.mode&fs.ModeType != kind || info.uid != 0 {
		return false
	}
	root := slices.IndexFunc(m.accounts, func(a *account) bool { return a.uid == 0 })
	if root < 0 {
		return true
	}
	become := g.become(ref(typeUser, m.accounts[root].name))
	if info.mode&0o002 != 0 && m.reachable(name, nil) {
		for _, a := range m.accounts {
			if a.uid != 0 {
				g.grant(ScopeGroups, ref(typeUser, a.name), become, "anyone may write it: "+reason)
			}
		}
	}
	if info.mode&0o020 == 0 || info.gid == 0 || !m.reachable(name, &info.gid) {
		return true
	}
	known := false
	for _, one := range m.groups {
		if one.gid == info.gid {
			known = true
			member := &discoveryv1.EntitlementRef{Resource: ref(typeGroup, one.name), Name: entMember}
			g.expand(ScopeGroups, member, become, "the group may write it: "+reason)
		}
	}
	if !known {
		g.gap(ScopeGroups, name+": its group has no name, so its members are not known")
	}
	return true
}

// reachable says that every directory above a file lets a group through, or anyone (nil).
func (m *machine) reachable(name string, gid *uint32) bool {
	for dir := filepath.Dir(name); dir != "/"; dir = filepath.Dir(dir) {
		info, err := m.stat(dir)
		if err != nil {
			return false
		}
		byGroup := gid != nil && info.gid == *gid && info.mode&0o010 != 0
		if info.mode&0o001 == 0 && !byGroup {
			return false
		}
	}
	return true
}

func (m *machine) hasMembers(one *group) bool {
	return slices.ContainsFunc(m.accounts, func(a *account) bool { return a.uid != 0 && slices.Contains(a.gids, one.gid) })
}

// reasonOf is why a file can't be looked at, without its path.
func reasonOf(err error) string {
	if pe, ok := errors.AsType[*fs.PathError](err); ok {
		return pe.Err.Error()
	}
	return err.Error()
}
