// Package supervise keeps processes running: a daemon that starts them, brings one that ended back at once, waits longer and longer
// for one that keeps ending, and stops all of them in good order. It promises that what it started ends with it, and that it signals
// nothing else. It knows processes by what it is told of them and nothing of what they are.
package supervise

import (
	"fmt"
	"path/filepath"
	"reflect"
	"regexp"
	"time"
)

// Unit is a process to keep running.
type Unit struct {
	// Name is unique, as `tnt_x/iam`.
	Name string `json:"name"`
	// Group that the unit belongs to, as `plane` or a tenant's id.
	Group string `json:"group"`
	// Order in which units start and, the other way round, stop: those of one number together.
	Order int `json:"order"`
	// Path, Args (without the program's own name) and Env are all that the process is given; Dir is where it runs.
	Path string   `json:"path"`
	Args []string `json:"args"`
	Env  []string `json:"env"`
	Dir  string   `json:"dir"`
	// User is whom it runs as; nil is whom the supervisor runs as.
	User *User `json:"user,omitempty"`
	// ReadsAll lets it read every file of the machine, whoever it runs as, and nothing else of what root may; it then has no network.
	ReadsAll bool `json:"reads_all,omitempty"`
	// Resources bound what it may take, where the machine lets the supervisor bound anything.
	Resources Resources `json:"resources,omitzero"`
	// Expendable is how readily the kernel ends it, rather than another process, when the machine has no memory left: 0 to 1000.
	Expendable int `json:"expendable,omitempty"`
	// Log is the file that takes what it writes.
	Log string `json:"log"`
	// Release is what it runs, for whoever asks.
	Release string `json:"release,omitempty"`
	// Ready says when it serves: an http:// URL that answers 200, postgres://host:port that takes logins, or unix:///path that takes
	// connections. Empty means at once.
	Ready string `json:"ready"`
	// Listens is an address, host:port, at which the supervisor keeps a socket open for it, from its first start until it is kept no
	// longer: each process of it gets the socket as descriptor ListensFD. Empty for none.
	Listens string `json:"listens,omitempty"`
	// Interrupt asks it to end with SIGINT rather than SIGTERM.
	Interrupt bool `json:"interrupt"`
	// StopWithin is how long it may take to end before it is killed.
	StopWithin time.Duration `json:"stop_within"`
}

// ListensFD is the descriptor of the socket that a process finds open.
const ListensFD = 3

// User is an operating system user: a process of it is in its own group and in Groups, and in no other.
type User struct {
	UID    uint32   `json:"uid"`
	GID    uint32   `json:"gid"`
	Groups []uint32 `json:"groups,omitempty"`
}

// mostExpendable is what the kernel ends first.
const mostExpendable = 1000

var unitName = regexp.MustCompile(`^[a-z0-9][a-z0-9_./-]{0,99}$`)

func (u Unit) validate() error {
	// It is also the path of its cgroup, below which whatever runs is ended with it: one that leads elsewhere would be another's.
	if !unitName.MatchString(u.Name) || filepath.Clean(u.Name) != u.Name {
		return fmt.Errorf("%q is not a unit's name", u.Name)
	}
	if u.Expendable < 0 || u.Expendable > mostExpendable {
		return fmt.Errorf("%s can't be expendable by %d: that is from 0 to %d", u.Name, u.Expendable, mostExpendable)
	}
	for what, path := range map[string]string{"program": u.Path, "directory": u.Dir, "log": u.Log} {
		if !filepath.IsAbs(path) {
			return fmt.Errorf("the %s %q of %s is not an absolute path", what, path, u.Name)
		}
	}
	return nil
}

func (u Unit) same(v Unit) bool { return reflect.DeepEqual(u, v) }

// differs names what two units don't say alike.
func (u Unit) differs(v Unit) (names []string) {
	a, b := reflect.ValueOf(u), reflect.ValueOf(v)
	for i := range a.NumField() {
		if !reflect.DeepEqual(a.Field(i).Interface(), b.Field(i).Interface()) {
			names = append(names, a.Type().Field(i).Name)
		}
	}
	return names
}

// State is how a unit is.
type State string

// The states.
const (
	// Starting runs and doesn't serve yet, or waits for its turn after its supervisor was killed.
	Starting State = "starting"
	// Serving runs and said that it is ready.
	Serving State = "serving"
	// NotReady served and runs, and has been saying for a while that it can't serve, as a service whose database is away does.
	NotReady State = "not ready"
	// NotAnswering served and runs, and has answered nothing for a while: it hangs, or was stopped. It is not ended for that, for it may
	// be slow and no more.
	NotAnswering State = "not answering"
	// BackingOff ended too often and waits for its next start.
	BackingOff State = "backing off"
	// Stopping was asked to end.
	Stopping State = "stopping"
	// Stopped ended as it was asked to.
	Stopped State = "stopped"
)

// Status is how a unit is, as the supervisor tells it.
type Status struct {
	Name  string `json:"name"`
	Group string `json:"group"`
	State State  `json:"state"`
	// PID of the process that runs; 0 for none.
	PID int `json:"pid"`
	// Since is when that process started.
	Since time.Time `json:"since"`
	// Well is when a process that is NotReady or NotAnswering was last known to serve; zero in every other state.
	Well time.Time `json:"well,omitzero"`
	// Restarts is how often it came back since the supervisor has it.
	Restarts int `json:"restarts"`
	// Failures is how often in a row it ended soon after its start.
	Failures int `json:"failures"`
	// LastExit says how it ended the last time; empty when it never did.
	LastExit string `json:"last_exit"`
	// NextStart is when a unit that backs off starts again.
	NextStart time.Time `json:"next_start"`
	// Memory in bytes (PSS); 0 where that can't be told.
	Memory int64 `json:"memory"`
	// Listens is where a socket is open for it, whether or not it runs; empty for none.
	Listens string `json:"listens,omitempty"`
	// Log is the file that takes what it writes.
	Log string `json:"log"`
	// Release is what it runs, as its unit says.
	Release string `json:"release,omitempty"`
}

// Anew is what to type to have a unit that answers nothing started anew, by whoever it runs as or root; empty for any other. The signal also
// ends a process that was stopped, or waits for a disk that is back.
func (s Status) Anew() string {
	if s.State != NotAnswering || s.PID == 0 {
		return ""
	}
	return fmt.Sprintf("kill -9 %d", s.PID)
}
