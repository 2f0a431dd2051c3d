package rollout

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"
	_ "time/tzdata" // images are made of nothing else: zones come along

	"google.golang.org/protobuf/types/known/timestamppb"

	registryv1 "a3os.app/proto/gen/go/a3os/registry/v1"
)

var weekdays = []string{"sun", "mon", "tue", "wed", "thu", "fri", "sat"}

const minutesOfDay = 24 * 60

func checkWindow(w *registryv1.Window) error {
	weekly, absolute := len(w.GetDays()) > 0, w.GetFrom() != nil || w.GetUntil() != nil
	switch {
	case weekly == absolute:
		return errors.New("a window is weekly, with days, or absolute, with from and until")
	case absolute && (!w.GetFrom().IsValid() || !w.GetUntil().IsValid()):
		return errors.New("an absolute window has a begin and an end")
	case absolute && !w.GetFrom().AsTime().Before(w.GetUntil().AsTime()):
		return errors.New("an absolute window ends after it begins")
	case absolute:
		return nil
	case w.GetEndMinute() == 0:
		return errors.New("a weekly window has an end: 24:00 is the end of the day")
	}
	for _, d := range w.GetDays() {
		if !slices.Contains(weekdays, d) {
			return fmt.Errorf("%q is not a day: it is mon, tue, wed, thu, fri, sat or sun", d)
		}
	}
	// `Local`, and the file that some machines have of it, is another zone on each machine, and the plan is read on several.
	if zone := strings.ToLower(w.GetZone()); zone == "local" || zone == "localtime" {
		return fmt.Errorf("the time zone %q is another one on each machine: name one as Europe/Vienna", w.GetZone())
	}
	if _, err := time.LoadLocation(w.GetZone()); err != nil {
		return fmt.Errorf("there is no time zone %q: name one as Europe/Vienna", w.GetZone())
	}
	return nil
}

// Open says whether tenants may be begun at a time, and why not. A window that denies beats every one that allows; where none allows,
// whatever is not denied is allowed. A window that can't be read denies.
func Open(windows []*registryv1.Window, now time.Time) (open bool, why string) {
	allows, allowed := false, false
	for _, w := range windows {
		in, err := within(w, now)
		switch {
		case err != nil:
			return false, err.Error()
		case w.GetDeny() && in:
			return false, "the end of the window " + WindowText(w)
		case !w.GetDeny():
			allows, allowed = true, allowed || in
		}
	}
	if allows && !allowed {
		var texts []string
		for _, w := range windows {
			if !w.GetDeny() {
				texts = append(texts, WindowText(w))
			}
		}
		return false, "the window " + strings.Join(texts, " or ")
	}
	return true, ""
}

func within(w *registryv1.Window, now time.Time) (bool, error) {
	if err := checkWindow(w); err != nil {
		return false, err
	}
	if len(w.GetDays()) == 0 {
		return !now.Before(w.GetFrom().AsTime()) && now.Before(w.GetUntil().AsTime()), nil
	}
	zone, err := time.LoadLocation(w.GetZone())
	if err != nil {
		return false, err
	}
	local := now.In(zone)
	minute := int32(local.Hour()*60 + local.Minute()) //nolint:gosec // G115: at most 1439
	on := func(day time.Weekday) bool { return slices.Contains(w.GetDays(), weekdays[day]) }
	today, yesterday := on(local.Weekday()), on((local.Weekday()+6)%7)
	if w.GetEndMinute() > w.GetStartMinute() {
		return today && minute >= w.GetStartMinute() && minute < w.GetEndMinute(), nil
	}
	// It ends on the day after.
	return today && minute >= w.GetStartMinute() || yesterday && minute < w.GetEndMinute(), nil
}

// ParseWindow reads a window as people write it: `mon-fri 09:00-17:00 Europe/Vienna`, `sat,sun 22:00-02:00`, or
// `2026-12-24T00:00:00Z/2027-01-02T00:00:00Z`.
func ParseWindow(text string, deny bool) (*registryv1.Window, error) {
	w := &registryv1.Window{Deny: deny}
	bad := fmt.Errorf("%q is not a window: write it as `mon-fri 09:00-17:00 Europe/Vienna` or `2026-12-24T00:00:00Z/2027-01-02T00:00:00Z`", text)
	if from, until, ok := strings.Cut(text, "/"); ok && !strings.Contains(text, " ") {
		a, errA := time.Parse(time.RFC3339, from)
		b, errB := time.Parse(time.RFC3339, until)
		if errA != nil || errB != nil {
			return nil, bad
		}
		w.From, w.Until = timestamppb.New(a), timestamppb.New(b)
		return w, checkWindow(w)
	}
	fields := strings.Fields(text)
	if len(fields) != 2 && len(fields) != 3 {
		return nil, bad
	}
	if len(fields) == 3 {
		w.Zone = fields[2]
	}
	for part := range strings.SplitSeq(fields[0], ",") {
		first, last, isRange := strings.Cut(part, "-")
		if !isRange {
			last = first
		}
		i, j := slices.Index(weekdays, first), slices.Index(weekdays, last)
		if i < 0 || j < 0 {
			return nil, bad
		}
		for d := i; ; d = (d + 1) % len(weekdays) {
			if !slices.Contains(w.GetDays(), weekdays[d]) {
				w.Days = append(w.Days, weekdays[d])
			}
			if d == j {
				break
			}
		}
	}
	start, end, _ := strings.Cut(fields[1], "-")
	var okStart, okEnd bool
	w.StartMinute, okStart = minuteOf(start)
	w.EndMinute, okEnd = minuteOf(end)
	if !okStart || !okEnd || w.GetStartMinute() == minutesOfDay {
		return nil, bad
	}
	if w.GetEndMinute() == 0 {
		w.EndMinute = minutesOfDay
	}
	return w, checkWindow(w)
}

func minuteOf(text string) (int32, bool) {
	var h, m int32
	if n, err := fmt.Sscanf(text, "%02d:%02d", &h, &m); n != 2 || err != nil || len(text) != len("09:00") {
		return 0, false
	}
	return h*60 + m, h >= 0 && m >= 0 && m < 60 && h*60+m <= minutesOfDay
}

// WindowText is a window as ParseWindow reads it.
func WindowText(w *registryv1.Window) string {
	if len(w.GetDays()) == 0 {
		return w.GetFrom().AsTime().Format(time.RFC3339) + "/" + w.GetUntil().AsTime().Format(time.RFC3339)
	}
	clock := func(m int32) string { return fmt.Sprintf("%02d:%02d", m/60, m%60) }
	text := strings.Join(w.GetDays(), ",") + " " + clock(w.GetStartMinute()) + "-" + clock(w.GetEndMinute())
	if w.GetZone() != "" {
		text += " " + w.GetZone()
	}
	return text
}
