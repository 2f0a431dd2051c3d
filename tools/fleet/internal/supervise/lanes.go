package supervise

import "sync"

// lanes are locks by name: what is done under one name is done one after another. A caller who was killed may have left a change behind
// that still waits for a process to end when the next caller asks for the same. The zero lanes is ready to use.
type lanes struct {
	mu sync.Mutex
	of map[string]*lane
}

type lane struct {
	sync.Mutex
	users int
}

// enter waits for its turn, and leave gives it to the next.
func (l *lanes) enter(name string) (leave func()) {
	l.mu.Lock()
	if l.of == nil {
		l.of = map[string]*lane{}
	}
	in := l.of[name]
	if in == nil {
		in = &lane{}
		l.of[name] = in
	}
	in.users++
	l.mu.Unlock()
	in.Lock()
	return func() {
		in.Unlock()
		l.mu.Lock()
		defer l.mu.Unlock()
		if in.users--; in.users == 0 {
			delete(l.of, name)
		}
	}
}
