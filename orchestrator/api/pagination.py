"""Lists come in pages: ``count``, ``next``, ``previous``, ``results``."""

from typing import Any, Final

from rest_framework.exceptions import NotFound, ValidationError
from rest_framework.pagination import PageNumberPagination
from rest_framework.request import Request

_MAX: Final = 100


class Pages(PageNumberPagination):
    """``?page=2&page_size=50``; a page holds 20 rows unless told, 100 at most."""

    page_size_query_param = "page_size"
    max_page_size = _MAX

    def get_page_size(self, request: Request) -> int:
        """Rows in a page.

        Raises:
            ValidationError: ``page_size`` is no positive number.
        """
        given = request.query_params.get(self.page_size_query_param)
        if given is None:
            return self.page_size or _MAX
        # int() refuses numbers of thousands of digits with a ValueError of its own
        if not given.isascii() or not given.isdigit() or not given.strip("0"):
            raise ValidationError({"page_size": [f"Enter a number from 1 to {_MAX}."]})
        return _MAX if len(given.lstrip("0")) > len(str(_MAX)) else min(int(given), _MAX)

    def paginate_queryset(self, queryset: Any, request: Request, view: Any = None) -> Any:
        """The rows of the page asked for.

        Raises:
            NotFound: there is no such page.
        """
        try:
            return super().paginate_queryset(queryset, request, view=view)
        except NotFound as error:
            raise NotFound({"page": ["There is no such page."]}) from error
