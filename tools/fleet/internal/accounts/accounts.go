// Package accounts finds numeric user ids that are nobody's, for processes that need no name. An id that it picks is mapped in this
// process's user namespace, has no entry in any name service that the machine asks (getent), is not lent to anybody's containers
// (subuid, subgid), and runs nothing. It writes nothing down: whoever takes an id remembers it.
package accounts

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"math/big"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sync/errgroup"
)

// Span is a range of ids, both ends included.
type Span struct{ First, Last uint32 }

// spans are where ids are looked for, in this order. The first lies beyond what login.defs, systemd's containers (up to 1879048191)
// and the id mapping of directories (up to 2000200000) hand out by themselves; see "Users, Groups, UIDs and GIDs on systemd systems".
// The second is what systemd picks from at run time, for a user namespace that maps no more than the usual 65536.
var spans = []Span{{2_001_000_000, 2_146_999_999}, {61_184, 65_519}}

// ErrNone is that no id can be had here.
var ErrNone = errors.New("no free user id")

// needed are the capabilities without which nothing can be given to another user (capability(7)), by their bits.
var needed = map[string]uint{"CAP_CHOWN": 0, "CAP_DAC_OVERRIDE": 1, "CAP_FOWNER": 3, "CAP_KILL": 5, "CAP_SETGID": 6, "CAP_SETUID": 7}

// Possible says why this process can't give processes and files to users of their own, in words; empty where it can.
func Possible() string {
	if os.Geteuid() != 0 {
		return "it was not started as root"
	}
	if why := lacks(needed); why != "" {
		return why
	}
	if len(mappedSpans()) == 0 {
		return "root's user namespace maps no ids that are free for this"
	}
	return ""
}

// CanHandReading says why this process can't give another the right to read every file, and no network, in words; empty where it can.
func CanHandReading() string {
	if why := Possible(); why != "" {
		return why
	}
	return lacks(map[string]uint{"CAP_DAC_READ_SEARCH": 2, "CAP_SYS_ADMIN": 21})
}

// lacks names a capability that this process has not, in words; empty where it has all.
func lacks(wanted map[string]uint) string {
	// The calling thread's: /proc/self is the main one's, which may have become another user's for good, see isolation. No goroutine is on it then.
	status, err := os.ReadFile("/proc/thread-self/status")
	if err != nil {
		return "this system does not say what root may do (no /proc)"
	}
	for line := range strings.Lines(string(status)) {
		text, ok := strings.CutPrefix(line, "CapEff:")
		if !ok {
			continue
		}
		bits, err := strconv.ParseUint(strings.TrimSpace(text), 16, 64)
		if err != nil {
			return "this system does not say what root may do"
		}
		for name, bit := range wanted {
			if bits&(1<<bit) == 0 {
				return "root has no " + name + " here"
			}
		}
	}
	return ""
}

// Pick answers n ids that are nobody's, as users and as groups, in the order in which it looks: from near on to the end of its span, and round
// from the span's first to the one before before. What was given before is from before to the one before near, so that nothing is looked for
// in another span. With zero for both it begins somewhere by chance, so that two planes of one machine don't meet. To ask for all that is
// needed at once spares looking through the machine each time. The error is ErrNone where there are too few.
func Pick(ctx context.Context, near, before uint32, n int) ([]uint32, error) {
	lent := append(lentIDs("/etc/subuid"), lentIDs("/etc/subgid")...)
	running := runningIDs()
	free := func(ids []uint32) ([]uint32, error) {
		return nobodys(ctx, slices.DeleteFunc(ids, func(id uint32) bool { return running[id] || within(lent, id) }))
	}
	none := fmt.Errorf("%w: this user namespace maps none that are free for this beside %d", ErrNone, near)
	for _, span := range mappedSpans() {
		from, most := near, span.left(near, before)
		switch {
		case near == 0:
			by, err := rand.Int(rand.Reader, big.NewInt((int64(span.size())+99)/100))
			if err != nil {
				return nil, err
			}
			from, most = span.First+uint32(by.Int64())*100, span.size() //nolint:gosec // at most span.Last
		case !within([]Span{span}, near-1): // which was given last
			continue
		}
		found, err := span.pick(from, most, n, free)
		if err != nil || len(found) == n {
			return found, err
		}
		none = fmt.Errorf("%w between %d and %d: %d are needed, and from %d on %d of %d are left to look at", ErrNone, span.First, span.Last, n, from, most, span.size())
	}
	return nil, none
}

func (s Span) size() uint32 { return s.Last - s.First + 1 }

// left is how many ids lie from near on, round, to the one before before; where that is in another span, to the end of this one.
func (s Span) left(near, before uint32) uint32 {
	if !within([]Span{s}, before) {
		return s.Last + 1 - near
	}
	return (before - s.First + s.size() - (near-s.First)%s.size()) % s.size()
}

// pick answers up to n ids of the first most from from on, going round; free are those of some that can be had.
func (s Span) pick(from, most uint32, n int, free func([]uint32) ([]uint32, error)) (found []uint32, err error) {
	const tries = 1000
	most = min(most, tries)
	for i := uint32(0); i < most && len(found) < n; {
		var some []uint32
		for ; i < most && len(found)+len(some) < n; i++ {
			some = append(some, s.First+(from-s.First+i)%s.size())
		}
		can, err := free(some)
		if err != nil {
			return nil, err
		}
		found = append(found, can...)
	}
	return found, nil
}

// mappedSpans are the spans of which every id exists in this process's user namespace.
func mappedSpans() []Span {
	users, groups := mapped("/proc/self/uid_map"), mapped("/proc/self/gid_map")
	var out []Span
	for _, s := range spans {
		if covers(users, s) && covers(groups, s) {
			out = append(out, s)
		}
	}
	return out
}

// mapped reads the ids of a user namespace (user_namespaces(7)): lines of inside, outside and count.
func mapped(file string) []Span {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []Span
	for lines := bufio.NewScanner(f); lines.Scan(); {
		var first, outside, count uint64
		if _, err := fmt.Sscan(lines.Text(), &first, &outside, &count); err == nil && count > 0 {
			out = append(out, Span{uint32(first), uint32(min(first+count-1, 1<<32-1))}) //nolint:gosec // the kernel's ids have 32 bits
		}
	}
	return out
}

func covers(all []Span, s Span) bool {
	for _, have := range all {
		if have.First <= s.First && s.Last <= have.Last {
			return true
		}
	}
	return false
}

func within(all []Span, id uint32) bool { return covers(all, Span{id, id}) }

// lentIDs are those that a user's containers may use (subuid(5)): whoever they are lent to is root over them.
func lentIDs(file string) []Span {
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var out []Span
	for lines := bufio.NewScanner(f); lines.Scan(); {
		parts := strings.Split(strings.TrimSpace(lines.Text()), ":")
		if len(parts) != 3 {
			continue
		}
		first, err1 := strconv.ParseUint(parts[1], 10, 32)
		count, err2 := strconv.ParseUint(parts[2], 10, 32)
		if err1 == nil && err2 == nil && count > 0 {
			out = append(out, Span{uint32(first), uint32(min(first+count-1, 1<<32-1))}) //nolint:gosec // bounded
		}
	}
	return out
}

// runningIDs are the users that run something now. Whose directory in /proc it is does not say that: a process that lets nobody look
// into it has it owned by root (prctl(2), PR_SET_DUMPABLE).
func runningIDs() map[uint32]bool {
	out := map[uint32]bool{}
	// One list of names: a pattern would have each process's whole directory read, which costs more than what is in it.
	processes, err := os.Open("/proc")
	if err != nil {
		return out
	}
	defer processes.Close()
	names, err := processes.Readdirnames(-1)
	if err != nil {
		return out
	}
	for _, name := range names {
		if _, err := strconv.Atoi(name); err != nil {
			continue // no process
		}
		status, err := os.ReadFile(filepath.Join("/proc", name, "status"))
		if err != nil {
			continue // it has ended
		}
		for line := range strings.Lines(string(status)) {
			ids, ok := strings.CutPrefix(line, "Uid:")
			if !ok {
				continue
			}
			for _, text := range strings.Fields(ids) {
				if id, err := strconv.ParseUint(text, 10, 32); err == nil {
					out[uint32(id)] = true
				}
			}
		}
	}
	return out
}

// nobodys answers which ids the machine's name services don't know, as users or as groups: a program that is linked without the C library
// doesn't ask all of them by itself.
func nobodys(ctx context.Context, ids []uint32) ([]uint32, error) {
	if len(ids) == 0 {
		return nil, nil
	}
	getent, err := exec.LookPath("getent")
	if err != nil {
		return slices.DeleteFunc(slices.Clone(ids), inFiles), nil //nolint:nilerr // a machine without it has what its files say
	}
	var users, groups map[uint32]bool
	asking, actx := errgroup.WithContext(ctx)
	asking.Go(func() (err error) { users, err = entries(actx, getent, "passwd", ids); return err })
	asking.Go(func() (err error) { groups, err = entries(actx, getent, "group", ids); return err })
	if err := asking.Wait(); err != nil {
		return nil, err
	}
	return slices.DeleteFunc(slices.Clone(ids), func(id uint32) bool { return users[id] || groups[id] }), nil
}

// inFiles says whether the machine's own files know an id, as a user or as a group.
func inFiles(id uint32) bool {
	text := strconv.FormatUint(uint64(id), 10)
	_, errUser := user.LookupId(text)
	_, errGroup := user.LookupGroupId(text)
	return errUser == nil || errGroup == nil
}

// entries are those of ids that have an entry in a database of getent(1), whose third field is the id in either.
func entries(ctx context.Context, getent, database string, ids []uint32) (map[uint32]bool, error) {
	args := []string{database}
	for _, id := range ids {
		args = append(args, strconv.FormatUint(uint64(id), 10))
	}
	out, err := exec.CommandContext(ctx, getent, args...).Output()
	exit, ended := errors.AsType[*exec.ExitError](err)
	// 2 is that not each key was found.
	const notAll = 2
	if err != nil && (!ended || exit.ExitCode() != notAll) {
		return nil, fmt.Errorf("ask getent whose ids from %d on are: %w", ids[0], err)
	}
	known := map[uint32]bool{}
	for line := range strings.Lines(string(out)) {
		const field = 2
		fields := strings.Split(line, ":")
		if len(fields) <= field {
			return nil, fmt.Errorf("getent %s says %q, which names no id", database, strings.TrimSpace(line))
		}
		id, err := strconv.ParseUint(strings.TrimSpace(fields[field]), 10, 32)
		if err != nil {
			return nil, fmt.Errorf("getent %s says %q, which names no id: %w", database, strings.TrimSpace(line), err)
		}
		known[uint32(id)] = true
	}
	return known, nil
}
