"""`make bench`: this service, Ansible and bare SSH clients, interleaved on the same devices and the same sshd."""
