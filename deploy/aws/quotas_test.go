package aws_test

import (
	"strings"
	"testing"

	"a3os.app/deploy/aws"
)

func TestBrokenTableIsRefusedByLineAndField(t *testing.T) {
	const head = "service,quota_name,quota_code,default,adjustable,source\n"
	for text, want := range map[string]string{
		"":                                   "head of mine.csv",
		"service,name\n":                     "line 1",
		head + "iam,Roles,,,Yes,https://a\n": "line 2: default is empty",
		head + "iam,Roles,,5,Yes,\n":         "line 2: source is empty",
		head + "iam,Roles,,5\n":              "line 2",
		head + "a,b,,5,No,https://a\na,b,,6,No,https://a\n": "line 3: quota_name",
	} {
		if _, err := aws.ParseQuotas("mine.csv", strings.NewReader(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q: %v, want %q", text, err, want)
		}
	}
}

func TestRateIsTheLowestOfAllRegions(t *testing.T) {
	if n, err := (aws.Quota{Default: "20/s in older Regions; 5/s in others"}).PerSecond(); n != 5 || err != nil {
		t.Errorf("%d, %v", n, err)
	}
	if _, err := (aws.Quota{Default: "5"}).PerSecond(); err == nil {
		t.Error("a count passed for a rate")
	}
}
