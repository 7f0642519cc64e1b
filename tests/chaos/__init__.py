"""The random campaign: everything is killed, frozen, cut and slowed while it works, and nothing may be lost or doubled.

``python -m tests.chaos --seed 1 --faults 200``; ``make chaos``. A seed gives the same faults in the same order.

``faults`` has the kinds, ``site`` what they break, ``campaign`` the course.
"""
